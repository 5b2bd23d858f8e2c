# SPDX-License-Identifier: Apache-2.0
# Fuzz targets. `make check` replays tests/fuzz/corpus with gcc; `make fuzz T=decode SECONDS=60`
# runs one (or, without T, each) under libFuzzer with clang; what it finds goes to build/fuzz.
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_REPLAY := $(FUZZ_NAMES:%=$(B)/tests/fuzz/replay_%)

build-all: $(FUZZ_REPLAY)

$(B)/tests/fuzz/replay_%: $(B)/tests/fuzz/fuzz_%.o $(B)/tests/fuzz/replay.o $(LIB)
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LDLIBS)

SECONDS ?= 60
FUZZ_SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined
FUZZ_OBJ := $(LIB_SRC:%.c=build/fuzz/%.o) $(PROTO_SRC:%.proto=build/fuzz/%.pb-c.o)

# Assembler templates that only gcc takes: linked in, not instrumented.
FUZZ_PLAIN := $(patsubst %.c,build/fuzz/%.o,$(shell grep -l '%z[0-9]' $(LIB_SRC)))
$(FUZZ_PLAIN): build/fuzz/%.o: %.c | $(PROTO_H)
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@
build/fuzz/%.o: %.c | $(PROTO_H)
	@mkdir -p $(@D)
	@clang $(CPPFLAGS) -std=gnu11 -O1 -g -w -fno-strict-aliasing -fsanitize=fuzzer-no-link $(FUZZ_SAN) -c $< -o $@
build/fuzz/%.pb-c.o: build/%.pb-c.c
	@mkdir -p $(@D)
	@clang $(CPPFLAGS) -O1 -g -w -fsanitize=fuzzer-no-link $(FUZZ_SAN) -c $< -o $@
# An archive, so that a target may stand in for what it leaves out.
build/fuzz/libpollux.a: $(FUZZ_OBJ)
	@rm -f $@
	@ar rcs $@ $^
build/fuzz/fuzz_%: build/fuzz/tests/fuzz/fuzz_%.o build/fuzz/libpollux.a
	@clang -fsanitize=fuzzer $(FUZZ_SAN) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS)

fuzz: deps $(if $(T),build/fuzz/fuzz_$(T),$(FUZZ_NAMES:%=build/fuzz/fuzz_%))
	@for t in $(or $(T),$(FUZZ_NAMES)); do mkdir -p build/fuzz/corpus/$$t; \
		build/fuzz/fuzz_$$t -max_total_time=$(SECONDS) -artifact_prefix=build/fuzz/$$t- \
			-print_final_stats=1 build/fuzz/corpus/$$t tests/fuzz/corpus/$$t || exit 1; done
