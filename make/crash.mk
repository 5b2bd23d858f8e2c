# SPDX-License-Identifier: Apache-2.0
# Crashes at every point of longer workloads on virtual disks, and of one by a kernel's ext4: what
# `make check` does a little of. RUNS=n workloads, SEED=n.
.PHONY: check-crash
check-crash:
	@tests/run deps $(DEPS)
	@$(MAKE) --no-print-directory -j$(JOBS) all $(B)/tests/unit/test_chain_crash $(B)/tests/tools/crashdisk MODE=$(MODE)
	@RUNS=$(or $(RUNS),6) OPS=$(or $(OPS),160) STEP=1 $(if $(SEED),SEED=$(SEED)) $(B)/tests/unit/test_chain_crash
	@POINTS=$(or $(POINTS),60) $(if $(SEED),SEED=$(SEED)) BUILD=$(B) tests/unit/disk_ext4.sh
