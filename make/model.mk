# SPDX-License-Identifier: Apache-2.0
# Models of what the vCPUs of one VM agree on: the barrier between the parts of a round, searched by
# spin over every order of steps, and the ownership of pages, enumerated with its own code. Each is
# also broken on purpose, and must then be found out.
.PHONY: model
M := build/model

model: $(B)/tests/sim/test_owner_model
	@tests/run deps spin
	@mkdir -p $(M)
	@cp tests/model/team.pml $(M)
	@cd $(M) && for members in 1 2 3; do \
		spin -DMEMBERS=$$members -a team.pml && gcc -O2 -w -DSAFETY -o pan pan.c && \
		./pan -m1000000 >pan.out && grep -q 'errors: 0' pan.out || { cat pan.out; exit 1; }; \
		echo "barrier, $$members threads beside the caller: $$(grep -o '[0-9]* states, stored' pan.out), no error"; done
	@cd $(M) && spin -DLOST_WAKEUP -a team.pml && gcc -O2 -w -DSAFETY -o pan pan.c && ./pan -m100000 >pan.out; \
		grep -q 'invalid end state (at' pan.out || { echo "the lost wake-up was not found"; exit 1; }; \
		echo "barrier with a lost wake-up: found"
	@DEPTH=3 $(B)/tests/sim/test_owner_model
