# SPDX-License-Identifier: Apache-2.0
# Every instruction form of the model against the host's processor.

ISA_OBJ := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tests/isa/*.c)))

$(B)/tests/isa/isa: $(ISA_OBJ) $(LIB)
	@$(CC) $(LDFLAGS) -o $@ $(ISA_OBJ) $(LIB) $(LDLIBS)

build-all: $(B)/tests/isa/isa

# Programs for two engines to agree on.
ISA_SEQUENCE := $(patsubst %,tests/isa/%.o,draft enumerate exempt ours sequence values)
$(B)/tests/unit/test_jit $(B)/tests/unit/test_jit_access $(B)/tests/unit/test_jit_loop $(B)/tests/unit/test_jit_signal \
$(B)/tests/unit/test_jit_flags $(B)/tests/unit/test_jit_x87: $(ISA_SEQUENCE:%=$(B)/%)
$(B)/tests/fuzz/replay_isa: $(patsubst %,$(B)/%,$(ISA_SEQUENCE) tests/isa/native.o)
build/fuzz/fuzz_isa: $(patsubst %,build/fuzz/%,$(ISA_SEQUENCE) tests/isa/native.o)

# Programs of their own, counted on the host and on the engines.
ISA_PROGRAM := build/tests/isa/mixed build/tests/isa/vector
build/tests/isa/mixed: ISA_MARCH := x86-64-v2
build/tests/isa/vector: ISA_MARCH := x86-64-v3
$(ISA_PROGRAM): build/tests/isa/%: tests/isa/program/%.c tests/isa/program/program.h tests/isa/program/program.ld
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 -O2 -I. -Wall -Wextra -Werror -march=$(ISA_MARCH) -fno-math-errno -ffreestanding -nostdlib -static -fno-pic -no-pie \
		-mno-red-zone -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
		-Wl,-T,tests/isa/program/program.ld -Wl,--build-id=none -Wl,--no-warn-rwx-segments -o $@ $<

ISA_COUNTS_OBJ := $(patsubst %,$(B)/tests/isa/%.o,counts/main native ours values)
$(B)/tests/isa/counts/counts: $(ISA_COUNTS_OBJ) $(LIB)
	@$(CC) $(LDFLAGS) -o $@ $(ISA_COUNTS_OBJ) $(LIB) $(LDLIBS)

build-all: $(ISA_PROGRAM) $(B)/tests/isa/counts/counts

# build/isa-table.txt, and -v3.txt of the model pollux-v3: one line a form, the column that answers for it. TRIALS, SEED.
isa-table: $(B)/tests/isa/isa
	@$(B)/tests/isa/isa --table $(B)/isa-table.txt --trials $(or $(TRIALS),24) --seed $(or $(SEED),1) || [ $$? = 77 ]
	@$(B)/tests/isa/isa --v3 --table $(B)/isa-table-v3.txt --trials $(or $(TRIALS),24) --seed $(or $(SEED),1) || [ $$? = 77 ]
	@echo "wrote $(B)/isa-table.txt and $(B)/isa-table-v3.txt"
