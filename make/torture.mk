# SPDX-License-Identifier: Apache-2.0
# make torture VCPUS=n RUNS=n SEED=n: one log run in every way that must not matter
# (tests/guests/torture.sh), Linux included.
.PHONY: torture
torture:
	@tests/run deps $(DEPS)
	@$(MAKE) --no-print-directory -j$(JOBS) build-all MODE=$(MODE)
	@$(MAKE) --no-print-directory guest PROFILE=work
	@VCPUS=$(or $(VCPUS),2) RUNS=$(or $(RUNS),5) $(if $(SEED),SEED=$(SEED)) \
		CACHE=$(or $(CACHE),1) $(if $(ENGINES),ENGINES="$(ENGINES)") \
		GUESTS="$(or $(GUESTS),locks tables code blk litmus ipi warp saved linux)" tests/guests/torture.sh
