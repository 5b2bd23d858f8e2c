# SPDX-License-Identifier: Apache-2.0
# Static analysis: cppcheck over everything, clang-tidy (.clang-tidy) over what clang can parse: the
# instruction families use gcc's asm operand modifiers. clang-format judges the layout of
# all of it, whether git knows the files or not. T= takes the files whose name contains it.

TIDY_SRC := $(filter-out vmm/cpu/%,$(LIB_SRC) $(wildcard $(MAINS)))

tidy: $(PROTO_H)
	@tests/run deps $(DEPS) $(DEPS_TIDY)
	@find $(wildcard $(PARTS)) proto ops tests -name '*.[ch]' | xargs clang-format --dry-run --Werror
	@cppcheck -j $(JOBS) -q --std=c11 --enable=warning,portability --inline-suppr -I. -D_GNU_SOURCE \
		--suppress=missingInclude --suppress=missingIncludeSystem --error-exitcode=1 \
		$(PARTS) proto ops
	@printf '%s\n' $(if $(T),$(foreach f,$(TIDY_SRC),$(if $(findstring $(T),$(f)),$(f))),$(TIDY_SRC)) | \
		xargs -P $(JOBS) -n 4 sh -c 'clang-tidy --quiet "$$@" -- -std=gnu11 $(filter-out -MMD -MP,$(CPPFLAGS)) 2>/dev/null' _
	@echo "tidy: clean"
