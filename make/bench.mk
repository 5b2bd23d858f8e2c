# SPDX-License-Identifier: Apache-2.0
# Measures, one line each, against their aims and against QEMU (tests/bench). Also written to
# build/bench.txt. LINES="boot idle ..." chooses among tests/bench/*.sh, REPEAT=n sets how often a
# measure is repeated (5; takeover 20).
BENCH_LINES := $(if $(filter command line,$(origin LINES)),$(LINES))

# Peers of measures.
DEPS_BENCH := casync borgbackup restic debootstrap

bench:
	@tests/run deps $(DEPS) $(DEPS_BENCH)
	@$(MAKE) --no-print-directory -j$(JOBS) all $(TOOL_BIN) MODE=$(MODE)
	@$(MAKE) --no-print-directory guest
	@BUILD=$(B) REPEAT=$(REPEAT) tests/bench/run $(BENCH_LINES)
