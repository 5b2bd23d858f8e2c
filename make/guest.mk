# SPDX-License-Identifier: Apache-2.0
# What runs inside: the guests of ops/guest, and the programs of tests/guest. The same for every
# MODE. GUEST_REFRESH=1 takes new packages. `make guest PROFILE=smp` (or generic) makes the guest for
# several vCPUs in build/guest-smp; ops/guest/build.sh says what is in each.
GUEST := build/guest
PROFILE ?= stock

ifeq ($(PROFILE),stock)
guest: $(GUEST)/initrd.img $(GUEST)/redis.state $(GUEST)/images/sessions

# A small disk that boots to a login prompt (in check), and Debian by debootstrap (three similar
# images of 800 MiB under build/cache, for bench and check-long; a few minutes, once).
$(GUEST)/disk.img: ops/guest/disk.sh $(GUEST)/initrd.img
	@ops/guest/disk.sh $(GUEST) build/cache

# A store with it, small:1, that knows how it boots.
$(GUEST)/images/sessions: $(GUEST)/disk.img | build/pollux
	@rm -rf $(GUEST)/images
	@build/pollux image push --store $(GUEST)/images --os pollux --app redis --kernel $(GUEST)/vmlinuz \
		--initrd $(GUEST)/disk-initrd.img --append "console=ttyS0 panic=-1" $(GUEST)/disk.img small:1
	@build/pollux image run --store $(GUEST)/images small:1 --memory 128 --console $(GUEST)/disk.console \
		--profile-until "login:" --timeout 120 </dev/null || { rm -rf $(GUEST)/images; exit 1; }

.PHONY: guest-debian
guest-debian: build/cache/debian-edited.img
build/cache/debian-edited.img: | $(GUEST)/initrd.img
	@tests/run deps debootstrap e2fsprogs
	@ops/guest/disk.sh $(GUEST) build/cache debian
else
guest: build/guest-$(PROFILE)/initrd.img
endif

# What measures run inside of guests: a static program, the same natively.
WORK_PROGRAMS := build/work/work

build/work/work: $(wildcard tests/bench/work/*)
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -I. -static -o $@ $(filter %.c,$^) -lpthread

$(foreach p,work smp generic,build/guest-$(p)/initrd.img): build/guest-%/initrd.img: \
		ops/guest/build.sh ops/guest/init $(WORK_PROGRAMS) $(if $(GUEST_REFRESH),FORCE)
	@ops/guest/build.sh $(@D) build/cache $* $(WORK_PROGRAMS)

# Where most tests begin: the guest with redis up, one network card, 256 MiB. Made anew whenever
# the program that made it is.
$(GUEST)/redis.state: $(GUEST)/initrd.img build/pollux
	@echo "guest: booting to redis for $@"
	@rm -f $@
	@build/pollux run --kernel $(GUEST)/vmlinuz --initrd $(GUEST)/initrd.img --memory 256 \
		--append "console=ttyS0 panic=-1" --net user --console $(GUEST)/redis.console \
		--save-at "pollux: redis ready" $@ --timeout 120 </dev/null
	@test -s $@

$(GUEST)/initrd.img: ops/guest/build.sh ops/guest/init $(if $(GUEST_REFRESH),FORCE)
	@ops/guest/build.sh $(GUEST) build/cache

# Guest programs, linked at 1 MiB: 64-bit code in the ELF32 container that multiboot 1 takes, and
# (tests/guest/32) code that stays in protected mode.
GUEST_PROGRAMS64 := $(patsubst tests/guest/%.c,build/tests/guest/%.elf,$(wildcard tests/guest/*.c))
GUEST_PROGRAMS32 := $(patsubst tests/guest/32/%.c,build/tests/guest/%.elf,$(wildcard tests/guest/32/*.c))
GUEST_CFLAGS := -std=gnu11 -O1 -Wall -Wextra -Werror -ffreestanding -nostdlib -static -fno-pic -no-pie \
	-mgeneral-regs-only -fno-stack-protector -fcf-protection=none \
	-fno-asynchronous-unwind-tables -Wl,-T,tests/guest/lib/link.ld -Wl,--build-id=none -Wl,-n \
	-Wl,--no-warn-rwx-segments -Itests/guest/lib

build-all: $(GUEST_PROGRAMS64) $(GUEST_PROGRAMS32)

$(GUEST_PROGRAMS64): build/tests/guest/%.elf: tests/guest/%.c $(wildcard tests/guest/lib/*)
	@mkdir -p $(@D)
	@$(CC) $(GUEST_CFLAGS) -mno-red-zone -o $@.64 tests/guest/lib/start.S tests/guest/lib/smp.S $< \
		tests/guest/lib/guest.c tests/guest/lib/checks.c tests/guest/lib/smp.c
	@objcopy -O elf32-i386 $@.64 $@
	@rm $@.64

$(GUEST_PROGRAMS32): build/tests/guest/%.elf: tests/guest/32/%.c $(wildcard tests/guest/lib/*)
	@mkdir -p $(@D)
	@$(CC) $(GUEST_CFLAGS) -m32 -march=i686 -o $@ tests/guest/lib/start32.S $< tests/guest/lib/guest32.c \
		tests/guest/lib/checks.c
