/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_decode.c - any bytes as an instruction: never read past, of the length Zydis
 * finds. */
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/cpu/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ZydisMachineMode machine[] = {ZYDIS_MACHINE_MODE_LONG_64,
                                               ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                                               ZYDIS_MACHINE_MODE_LONG_COMPAT_16};
    static const ZydisStackWidth stack[] = {ZYDIS_STACK_WIDTH_64, ZYDIS_STACK_WIDTH_32,
                                            ZYDIS_STACK_WIDTH_16};
    static const ZydisDecoderMode off[] = {
        /* not in the models; the first two in pollux-v3 */
        ZYDIS_DECODER_MODE_LZCNT, ZYDIS_DECODER_MODE_TZCNT,    ZYDIS_DECODER_MODE_MPX,
        ZYDIS_DECODER_MODE_CET,   ZYDIS_DECODER_MODE_WBNOINVD, ZYDIS_DECODER_MODE_CLDEMOTE};

    if (size == 0 || size > INSN_BYTES_MAX) {
        return 0;
    }
    decode_init();
    for (unsigned n = 0; n < CPU_MODELS * DECODE_MODES; n++) {
        enum cpu_model model = (enum cpu_model)(n / DECODE_MODES);
        enum decode_mode m = (enum decode_mode)(n % DECODE_MODES);
        struct insn in;
        ZydisDecoder d;
        ZydisDecodedInstruction z;
        uint8_t *exact = plx_calloc(1, size); /* so that a sanitizer sees a byte too many */

        PLX_CHECK(exact != NULL);
        memcpy(exact, data, size);
        int rc = decode_insn(model, m, exact, size, &in);
        PLX_CHECK(rc == 0 || (rc == PLX_ETRUNCATED && size < INSN_BYTES_MAX));
        if (rc == 0) {
            PLX_CHECK(in.fn != NULL && in.len >= 1 && in.len <= size);
        }
        if (rc == 0 && (in.flags & INSN_BAD) == 0) {
            PLX_CHECK(ZYAN_SUCCESS(ZydisDecoderInit(&d, machine[m], stack[m])));
            for (size_t i = model == CPU_POLLUX_V3 ? 2 : 0; i < PLX_COUNT(off); i++) {
                PLX_CHECK(ZYAN_SUCCESS(ZydisDecoderEnableMode(&d, off[i], ZYAN_FALSE)));
            }
            PLX_CHECK(ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, exact, size, &z)));
            PLX_CHECK(z.length == in.len);
        }
        plx_free(exact);
    }
    return 0;
}
