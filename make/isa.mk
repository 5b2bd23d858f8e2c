# SPDX-License-Identifier: Apache-2.0
# Every instruction form of the model against the host's processor.

ISA_OBJ := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tests/isa/*.c)))

$(B)/tests/isa/isa: $(ISA_OBJ) $(LIB)
	@$(CC) $(LDFLAGS) -o $@ $(ISA_OBJ) $(LIB) $(LDLIBS)

build-all: $(B)/tests/isa/isa

# build/isa-table.txt: one line a form, the column that answers for it. TRIALS, SEED.
isa-table: $(B)/tests/isa/isa
	@$(B)/tests/isa/isa --table $(B)/isa-table.txt --trials $(or $(TRIALS),24) --seed $(or $(SEED),1)
	@echo "wrote $(B)/isa-table.txt"
