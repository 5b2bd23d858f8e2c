# SPDX-License-Identifier: Apache-2.0
# Pollux: one non-recursive Makefile. Targets: deps all check check-long fuzz tidy bench guest demo
# install clean. MODE=asan|ubsan|tsan|cov builds that variant under build/MODE and tests it.

MODE ?=
B := build$(if $(MODE),/$(MODE))
JOBS := $(shell nproc)

# Packages of a fresh Debian 12; `make deps` installs what is missing.
DEPS_BUILD := gcc make pkg-config libzydis-dev libraft-dev libuv1-dev libzmq3-dev \
	libprotobuf-c-dev protobuf-c-compiler liblmdb-dev libssl-dev libxml2-dev libslirp-dev \
	libglib2.0-dev libxxhash-dev libseccomp-dev libcmocka-dev libmicrohttpd-dev liburing-dev libzstd-dev
DEPS_TEST := prometheus curl cpio busybox-static redis-tools qemu-system-x86 qemu-utils seabios nftables iproute2 \
	tcpdump iputils-ping procps libxml2-utils binutils apt-utils ca-certificates nbdkit libnbd-bin libvhdi-utils e2fsprogs fio
DEPS := $(DEPS_BUILD) $(DEPS_TEST)
DEPS_TIDY := clang clang-tidy clang-format cppcheck libclang-rt-14-dev

CC := gcc
CPPFLAGS := -D_GNU_SOURCE -I. -I$(B) -MMD -MP
CFLAGS := -std=gnu11 -O2 -g -Wall -Wextra -Wconversion -Wshadow -Werror -fno-omit-frame-pointer \
	-fno-strict-aliasing
LDFLAGS :=
PKGS := libuv libzmq libprotobuf-c libxml-2.0 slirp openssl libxxhash libseccomp libmicrohttpd liburing libzstd
LDLIBS = $(shell pkg-config --libs $(PKGS)) -lZydis -lraft -llmdb -lpthread -lm
CPPFLAGS += $(shell pkg-config --cflags $(PKGS) 2>/dev/null | sed 's/-I/-isystem /g')

ifeq ($(MODE),asan)
CFLAGS += -fsanitize=address -fno-sanitize-recover=all
LDFLAGS += -fsanitize=address
else ifeq ($(MODE),ubsan)
# gcc warns of conversions in what the sanitizer adds.
CFLAGS += -fsanitize=undefined -fno-sanitize-recover=all -Wno-conversion -Wno-sign-conversion
LDFLAGS += -fsanitize=undefined
else ifeq ($(MODE),tsan)
CFLAGS += -fsanitize=thread
LDFLAGS += -fsanitize=thread
else ifeq ($(MODE),cov)
CFLAGS := $(filter-out -O2,$(CFLAGS)) -O1 --coverage
LDFLAGS += --coverage
else ifneq ($(MODE),)
$(error MODE is asan, ubsan, tsan or cov, not '$(MODE)')
endif

PARTS := base vmm replica consensus storage migrate
MAINS := ops/pollux.c ops/polluxd.c ops/pollux_replica.c
LIB_SRC := $(filter-out $(MAINS),$(sort $(shell find $(PARTS) ops proto 2>/dev/null -name '*.c')))
PROTO_SRC := $(sort $(wildcard proto/*.proto))
PROTO_C := $(PROTO_SRC:%.proto=$(B)/%.pb-c.c)
PROTO_H := $(PROTO_C:.c=.h)
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o) $(PROTO_C:.c=.o)
LIB := $(B)/libpollux.a
PROGRAMS := $(patsubst ops/%.c,$(B)/%,$(subst _,-,$(wildcard $(MAINS))))

TEST_SRC := $(sort $(wildcard tests/unit/*.c tests/sim/*.c))
ifeq ($(MODE),tsan)
# The host's faults are these tests' answers, and this sanitizer delivers signals late.
TEST_SRC := $(filter-out tests/unit/test_sse.c tests/unit/test_x87.c,$(TEST_SRC))
endif
TEST_BIN := $(TEST_SRC:%.c=$(B)/%)
TOOL_SRC := $(sort $(wildcard tests/tools/*.c))
TOOL_BIN := $(TOOL_SRC:%.c=$(B)/%)

.PHONY: all deps check check-long tidy bench guest demo install clean fuzz isa-table build-all FORCE
.DEFAULT_GOAL := all
.SECONDARY:

all: $(PROGRAMS)
build-all: all $(TEST_BIN) $(TOOL_BIN)

$(B)/%.o: %.c | $(PROTO_H)
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

# Generated code answers to its generator, not to our warnings.
$(B)/%.pb-c.c $(B)/%.pb-c.h &: %.proto
	@mkdir -p $(@D)
	@protoc-c --c_out=$(B) $<
$(B)/%.pb-c.o: $(B)/%.pb-c.c
	@$(CC) $(CPPFLAGS) $(filter-out -W%,$(CFLAGS)) -c $< -o $@

$(LIB): $(LIB_OBJ)
	@rm -f $@
	@ar rcs $@ $^

$(B)/pollux: $(B)/ops/pollux.o $(LIB)
$(B)/polluxd: $(B)/ops/polluxd.o $(LIB)
$(B)/pollux-replica: $(B)/ops/pollux_replica.o $(LIB)
$(PROGRAMS):
	@$(CC) $(LDFLAGS) -o $@ $< $(LIB) $(LDLIBS)
	@echo "built $@"

$(B)/tests/%: $(B)/tests/%.o $(LIB)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LDLIBS) -lcmocka

deps:
	@tests/run deps $(DEPS)
	@if [ "$(filter tidy fuzz,$(MAKECMDGOALS))" ]; then tests/run deps $(DEPS_TIDY); fi

# Every test is a file: tests/unit and tests/sim programs, and executable tests/*/*.sh. Exit code
# 0 passes, 77 skips. Scripts under tests/long run in check-long only; it says every minute what runs.
check check-long:
	@tests/run deps $(DEPS)
	@$(MAKE) --no-print-directory -j$(JOBS) build-all MODE=$(MODE)
	@if [ -z "$(MODE)" ] && [ -z "$(T)" ]; then $(MAKE) --no-print-directory guest; fi
	@if [ $@ = check-long ] && [ -z "$(MODE)" ] && [ -z "$(T)" ]; then \
		for p in work generic smp; do $(MAKE) --no-print-directory guest PROFILE=$$p || exit 1; done; fi
	@BUILD=$(B) MODE=$(MODE) T="$(T)" REQUIRE="$(REQUIRE)" tests/run $@ $(TEST_BIN)$(if $(filter cov,$(MODE)),; \
		rc=$$?; echo && tests/tools/coverage.sh $(B) || rc=1; exit $$rc)

clean:
	rm -rf build

-include $(wildcard make/*.mk)
-include $(shell find $(B) -type f -not -path '*/.*' -name '*.d' 2>/dev/null)
