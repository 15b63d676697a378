"""The parser of machine code, on small listings in the form of nvdisasm."""

import pytest
from boltzbench.harness.inspection.pipes import CATEGORIES, RATES, category, clocks, mix
from boltzbench.harness.inspection.sass import Block, Function, Instruction, parse

HEAD = """
	.headerflags	@"EF_CUDA_TEXMODE_UNIFIED EF_CUDA_SM90"
	.elftype	@"ET_EXEC"

//--------------------- .text.kernel       --------------------------
	.section	.text.kernel,"ax",@progbits
	.sectionflags	@"SHF_BARRIERS=1"
	.align	128
        .global         kernel
        .type           kernel,@function
        .size           kernel,(.L_x_9 - kernel)
kernel:
.text.kernel:
"""
TAIL = """
.L_x_8:
        /*0f00*/                   BRA `(.L_x_8);
        /*0f10*/                   NOP;
.L_x_9:

//--------------------- .nv.shared.kernel --------------------------
	.section	.nv.shared.kernel,"aw",@nobits
        /*0000*/                   NOP;
"""


def code(body: str) -> Function:
    (function,) = parse(HEAD + body + TAIL).values()
    assert function.symbol == "kernel"
    return function


def names(instructions) -> str:
    return " ".join(each.name for each in instructions)


VECTORS_AND_REST = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   S2R R33, SR_TID.X ;
.L_x_0:
        /*0020*/                   LDG.E R9, desc[UR4][R6.64] ;
        /*0030*/               @P1 BRA `(.L_x_2) ;
.L_x_1:
        /*0040*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0050*/              @!P2 BRA `(.L_x_3) ;
        /*0060*/                   FFMA R8, R4, R5, R8 ;
        /*0070*/                   MUFU.EX2 R8, R8 ;
.L_x_3:
        /*0080*/                   FADD R8, R8, R9 ;
        /*0090*/               @P0 BRA `(.L_x_1) ;
.L_x_2:
        /*00a0*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*00b0*/                   FADD R8, R8, R4 ;
        /*00c0*/               @P0 BRA `(.L_x_2) ;
        /*00d0*/                   STG.E desc[UR4][R6.64], R8 ;
        /*00e0*/              @!P3 BRA `(.L_x_0) ;
        /*00f0*/                   EXIT ;
"""
"""A loop over rows around two loops: one over vectors, with a branch, and one over the tail."""


def test_all_parts_of_instructions_are_parsed():
    first, *_, last = code(VECTORS_AND_REST).blocks[2].instructions
    assert first == Instruction("LDG", ("E", "128", "CONSTANT"), "", "R4, desc[UR4][R2.64]")
    assert (last.predicate, last.opcode, last.target) == ("!P2", "BRA", ".L_x_3")


def test_loops_and_their_bodies_are_found():
    loops = code(VECTORS_AND_REST).loops
    assert loops == {1: frozenset({1, 2, 3, 4, 5, 6}), 2: frozenset({2, 3, 4}), 5: frozenset({5})}


def test_the_inner_loop_is_the_one_with_the_widest_accesses_and_its_longer_branch():
    path = code(VECTORS_AND_REST).hot_path()
    assert names(path.instructions) == "LDG.E.128.CONSTANT BRA FFMA MUFU.EX2 FADD BRA"
    assert path.in_loop
    assert not path.nested


def test_the_path_through_the_kernel_has_each_loop_once():
    path = code(VECTORS_AND_REST).whole_path()
    assert not path.in_loop
    assert path.nested
    assert names(path.instructions).startswith("LDC S2R LDG.E BRA LDG.E.128.CONSTANT BRA FFMA")
    assert names(path.instructions).endswith("STG.E BRA EXIT")
    assert len(path.inner) == len(path.instructions) - 3  # all but the first two and EXIT


def test_a_branch_for_single_elements_does_not_count():
    path = code("""
.L_x_0:
        /*0000*/               @P1 BRA `(.L_x_1) ;
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/                   BRA `(.L_x_2) ;
.L_x_1:
        /*0030*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0040*/                   LDG.E R5, desc[UR4][R2.64+0x4] ;
        /*0050*/                   LDG.E R6, desc[UR4][R2.64+0x8] ;
        /*0060*/                   LDG.E R7, desc[UR4][R2.64+0xc] ;
.L_x_2:
        /*0070*/                   FADD R8, R8, R4 ;
        /*0080*/               @P0 BRA `(.L_x_0) ;
        /*0090*/                   EXIT ;
""").hot_path()
    assert names(path.accesses) == "LDG.E.128"


def test_without_a_loop_the_whole_kernel_counts():
    path = code("""
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/               @P0 EXIT ;
        /*0020*/                   LDG.E.64 R2, desc[UR4][R2.64] ;
        /*0030*/                   STG.E.U8 desc[UR4][R4.64], R2 ;
        /*0040*/                   EXIT ;
""").hot_path()
    assert [each.access_bytes for each in path.accesses] == [8, 1]
    assert not path.in_loop
    assert len(path.instructions) == 5


def test_a_correction_in_a_loop_of_its_own_is_not_the_inner_loop():
    work = "\n".join(f"        /*{i:04x}*/                   FFMA R8, R4, R5, R8 ;" for i in range(0x100, 0x300, 16))
    path = code(f"""
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0010*/               @P0 BRA `(.L_x_1) ;
.L_x_0:
        /*0020*/                   LDG.E.CONSTANT R9, desc[UR4][R6.64] ;
        /*0030*/               @P1 BRA `(.L_x_0) ;
.L_x_1:
{work}
        /*0300*/                   EXIT ;
""").hot_path()
    assert not path.in_loop
    assert "LDG.E.128" in names(path.accesses)


def test_the_inner_loop_is_the_product_and_not_the_copy_in_it():
    path = code("""
.L_x_0:
        /*0000*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
.L_x_1:
        /*0010*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0020*/                   STS [R5], R4 ;
        /*0030*/               @P0 BRA `(.L_x_1) ;
        /*0040*/                   LDS.128 R4, [R5] ;
        /*0050*/                   FFMA R8, R4, R5, R8 ;
        /*0060*/                   FFMA R8, R4, R6, R8 ;
        /*0070*/                   FFMA R8, R4, R7, R8 ;
        /*0080*/               @P1 BRA `(.L_x_0) ;
        /*0090*/                   EXIT ;
""").hot_path()
    assert names(path.instructions).count("FFMA") == 3
    assert path.in_loop
    assert path.nested
    assert names(path.inner) == "LDG.E STS BRA"


def test_a_loop_with_matrix_products_is_the_inner_loop_however_short():
    long = "\n".join(
        f"        /*{16 * n + 256:04x}*/                   STG.E.128 desc[UR4][R6.64], R8 ;" for n in range(99)
    )
    path = code(f"""
.L_x_0:
        /*0000*/                   LDSM.16.M88.4 R4, [R5] ;
        /*0010*/                   IMMA.16832.S8.S8 R8, R4.ROW, R6.COL, R8 ;
        /*0020*/               @P1 BRA `(.L_x_0) ;
.L_x_1:
        /*0030*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0040*/               @P2 BRA `(.L_x_1) ;
{long}
        /*0ff0*/                   EXIT ;
""").hot_path()
    assert path.in_loop
    assert len(path.instructions) == 3


def test_a_jump_back_from_code_after_the_end_is_no_loop():
    function = code("""
        /*0000*/               @P0 BRA `(.L_x_1) ;
.L_x_0:
        /*0010*/                   STG.E desc[UR4][R6.64], R8 ;
        /*0020*/                   EXIT ;
.L_x_1:
        /*0030*/                   FADD R8, R8, R4 ;
        /*0040*/                   BRA `(.L_x_0) ;
""")
    assert function.loops == {}
    assert "FADD" in names(function.hot_path().instructions)


def test_diverged_threads_reconverge_at_the_label_of_bssy():
    function = code("""
        /*0000*/                   BSSY.RECONVERGENT B0, `(.L_x_1) ;
        /*0010*/               @P0 BRA `(.L_x_0) ;
        /*0020*/                   BSYNC.RECONVERGENT B0 ;
.L_x_0:
        /*0030*/                   CALL.REL.NOINC `($kernel$division) ;
.L_x_1:
        /*0040*/                   EXIT ;
$kernel$division:
        /*0050*/                   MUFU.RCP R4, R4 ;
        /*0060*/                   RET.REL.NODEC R2 `(kernel) ;
""")
    assert function.blocks[1].successors == (3,)
    assert function.blocks[2].successors == (3, 4)
    assert function.blocks[4].successors == ()


def test_local_memory_is_counted():
    assert code("        /*0000*/                   STL.64 [R1], R4 ;\n").local_accesses == 1
    assert code(VECTORS_AND_REST).local_accesses == 0


def test_several_kernels_of_a_file():
    both = parse(HEAD + VECTORS_AND_REST + TAIL + HEAD.replace("kernel", "_Z5otherf") + TAIL)
    assert list(both) == ["kernel", "_Z5otherf"]
    assert both["_Z5otherf"].hot_path().instructions[0].opcode == "BRA"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("LDG.E.128", "memory"),
        ("LDGSTS.E.BYPASS.128", "memory"),
        ("SHFL.BFLY", "memory"),
        ("LDC.64", "other"),
        ("FFMA.FTZ", "fma"),
        ("FFMA2", "fma"),
        ("HADD2.F32", "fma"),
        ("MUFU.EX2", "mufu"),
        ("IMAD", "multiply"),
        ("IMAD.WIDE.U32", "multiply"),
        ("IMAD.HI.U32", "multiply"),
        ("IMAD.MOV.U32", "logic"),
        ("IMAD.U32", "logic"),
        ("IMAD.SHL.U32", "logic"),
        ("IMAD.X", "logic"),
        ("LOP3.LUT", "logic"),
        ("FMNMX", "logic"),
        ("F2FP.BF16.F32.PACK_AB", "convert"),
        ("DFMA", "fp64"),
        ("HMMA.16816.F32", "matrix"),
        ("HGMMA.64x64x16.F32.BF16", "matrix"),
        ("UTCHMMA", "matrix"),
        ("BAR.SYNC.DEFER_BLOCKING", "other"),
        ("BRA.U", "other"),
    ],
)
def test_the_category_of_an_instruction(line, wanted):
    opcode, *modifiers = line.split(".")
    assert category(Instruction(opcode, tuple(modifiers))) == wanted
    assert wanted in CATEGORIES


def test_the_mix_counts_each_instruction_once():
    instructions = code(VECTORS_AND_REST).instructions
    assert sum(mix(instructions).values()) == len(instructions)


def made_of(*lines: str) -> list[Instruction]:
    return [Instruction(opcode, tuple(modifiers)) for opcode, *modifiers in (line.split(".") for line in lines)]


HOPPER = {pipe: rates[1] for pipe, rates in RATES.items()}


def test_clocks_of_each_pipe():
    found = clocks(made_of("FFMA", "MUFU.EX2", "LOP3.LUT", "LDS.128", "SHFL.BFLY", "F2F.F32.F64", "DFMA"), HOPPER)
    assert found == {
        "issue": 7 / 128,
        "fma": 1 / 128,
        "multiply": 0.0,
        "alu": 1 / 64,
        "mufu": 2 / 16,
        "fp64": 1 / 64,
        "shared": 5 / 32,
    }


def test_a_product_of_integers_takes_the_fma_pipe_too_and_a_wide_one_twice():
    assert clocks(made_of("IMAD"), HOPPER)["multiply"] == 1 / 64
    assert clocks(made_of("IMAD.WIDE.U32"), HOPPER)["multiply"] == 2 / 64
    assert clocks(made_of("IMAD.WIDE.U32"), HOPPER)["fma"] == 2 / 128
    assert clocks(made_of("IMAD.WIDE.U32"), HOPPER, wide_products=64)["multiply"] == 1 / 64
    assert clocks(made_of("UIMAD.WIDE.U32"), HOPPER)["multiply"] == 0


def test_two_exponentials_for_each_16_bit_element_cannot_keep_up_with_memory():
    """The published number for an H200: 103 % of the special function units at 4.3 TB/s."""
    seconds = clocks(made_of("MUFU.EX2", "MUFU.EX2"), HOPPER)["mufu"] / (132 * 1.98e9)
    assert seconds * 4.3e12 / 2 == pytest.approx(1.03, abs=0.005)


def test_a_block_without_successors_is_an_end():
    lone = Function("kernel", (Block((Instruction("EXIT"),), ()),))
    assert lone.loops == {}
    assert names(lone.hot_path().instructions) == "EXIT"
