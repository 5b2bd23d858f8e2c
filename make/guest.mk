# SPDX-License-Identifier: Apache-2.0
# The stock guest (ops/guest): the same for every MODE. GUEST_REFRESH=1 takes new packages.
GUEST := build/guest

guest: $(GUEST)/initrd.img

$(GUEST)/initrd.img: ops/guest/build.sh ops/guest/init $(if $(GUEST_REFRESH),FORCE)
	@ops/guest/build.sh $(GUEST) build/cache
