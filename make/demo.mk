# SPDX-License-Identifier: Apache-2.0
# The drill of ops/demo/demo.sh, from nothing: packages, build, guest, cluster.

demo:
	@tests/run deps $(DEPS)
	@$(MAKE) --no-print-directory -j$(JOBS) all $(B)/tests/tools/seqwriter
	@$(MAKE) --no-print-directory guest
	@REPEAT=$(or $(REPEAT),1) BUILD=$(B) ops/demo/demo.sh

PREFIX ?= /usr/local
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)/etc/pollux
	install -m 755 $(B)/pollux $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(B)/polluxd $(B)/pollux-replica $(DESTDIR)$(PREFIX)/sbin
	install -m 644 ops/pollux.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 ops/polluxd.8 $(DESTDIR)$(PREFIX)/share/man/man8
	test -e $(DESTDIR)/etc/pollux/pollux.conf || \
		install -m 644 ops/pollux.conf $(DESTDIR)/etc/pollux
