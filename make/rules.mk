# SPDX-License-Identifier: Apache-2.0
# Every rule of determinism (ARCHITECTURE.md, "Determinism") broken on purpose, one at a time: the
# files that keep the rule are built with -DBREAK_Rn and linked with tests/unit/test_rules.c, whose
# test of that rule must then fail. tests/unit/broken_rules.sh builds and runs them all.

RULES := R1 R2 R3 R4 R5 R6 R7 R8 R9
RULE_R1 := vmm/sched/cpu_section.c vmm/sched/rounds.c
RULE_R2 := vmm/cpu/mem.c vmm/cpu/mem_translate.c
RULE_R3 := vmm/sched/vm.c vmm/sched/rounds.c
RULE_R4 := vmm/sched/vm.c
RULE_R5 := vmm/sched/vm.c vmm/sched/rounds.c
RULE_R6 := vmm/cpu/sys_misc.c
RULE_R7 := vmm/cpu/mem.c vmm/cpu/mem_translate.c vmm/mmu/shadow.c
RULE_R8 := vmm/mmu/ram.c
RULE_R9 := vmm/sched/digest.c

define BROKEN_RULE
$(B)/break/$(1)/%.o: %.c | $(PROTO_H)
	@mkdir -p $$(@D)
	@$$(CC) $$(CPPFLAGS) $$(CFLAGS) -DBREAK_$(1) -c $$< -o $$@
$(B)/break/$(1)/test_rules: $(B)/tests/unit/test_rules.o $(RULE_$(1):%.c=$(B)/break/$(1)/%.o) $(LIB)
	@$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LDLIBS) -lcmocka
endef
$(foreach rule,$(RULES),$(eval $(call BROKEN_RULE,$(rule))))

.PHONY: broken-rules
broken-rules: $(RULES:%=$(B)/break/%/test_rules)
