"""Lines of PTX that several tests of asynchronous instructions need; they go with `harness.run`.

They use %r56 to %r63, %d14, %d15, %p6 and %p7. Shared memory is counted from `global_smem` on.
"""

ADDRESS = "mov.u32 %r63, global_smem;"  # %r63: where shared memory begins


def fill(name: str, size: int, threads: int, to: int = 0) -> str:
    """All threads copy `size` bytes (a multiple of 16 per thread) of a global array to shared memory; then bar.sync."""
    step = 16 * threads
    lines = [
        f"{ADDRESS} mov.u32 %r62, %tid.x; shl.b32 %r62, %r62, 4; cvt.u64.u32 %d14, %r62; add.u64 %d14, %d14, %{name};",
        "add.u32 %r62, %r62, %r63;",
    ]
    for at in range(0, size, step):
        lines.append(f"ld.global.v4.b32 {{%r56, %r57, %r58, %r59}}, [%d14+{at}];")
        lines.append(f"st.shared.v4.b32 [%r62+{to + at}], {{%r56, %r57, %r58, %r59}};")
    return "\n".join([*lines, "bar.sync 0;"])


def dump(name: str, size: int, threads: int, start: int = 0) -> str:
    """The opposite, after a bar.sync."""
    step = 16 * threads
    lines = [
        "bar.sync 0;",
        f"{ADDRESS} mov.u32 %r62, %tid.x; shl.b32 %r62, %r62, 4; cvt.u64.u32 %d14, %r62; add.u64 %d14, %d14, %{name};",
        "add.u32 %r62, %r62, %r63;",
    ]
    for at in range(0, size, step):
        lines.append(f"ld.shared.v4.b32 {{%r56, %r57, %r58, %r59}}, [%r62+{start + at}];")
        lines.append(f"st.global.v4.b32 [%d14+{at}], {{%r56, %r57, %r58, %r59}};")
    return "\n".join(lines)


def first_thread(condition: str = "%p7") -> str:
    """A predicate that holds for thread 0 only."""
    return f"mov.u32 %r61, %tid.x; setp.eq.u32 {condition}, %r61, 0;"


def begin(barrier: int, count: int = 1, fence: str = "fence.proxy.async.shared::cta;") -> str:
    """Thread 0 initialises the mbarrier at byte `barrier`; everybody sees it."""
    init = f"@%p7 mbarrier.init.shared::cta.b64 [%r63+{barrier}], {count};"
    return f"{ADDRESS} {first_thread()} {init}\n{fence}\nbar.sync 0;\n"


def wait(barrier: int, parity: int, label: str) -> str:
    """Until the phase of this parity is over."""
    test = f"mbarrier.try_wait.parity.shared::cta.b64 %p6, [%r63+{barrier}], {parity};"
    return f"{label}:\n{test}\n@!%p6 bra {label};\n"
