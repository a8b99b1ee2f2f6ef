"""What the machine at hand can do: device, precision, threads, free memory.

Precision is read from the processor's own flags. Without AVX512-bf16 or AMX a processor computes
bf16 in software, more than ten times slower than fp32, so there it is refused, not tried.
"""

import contextlib
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from ftlab_kit.errors import InputError

GIB = 2**30
CPUINFO = Path("/proc/cpuinfo")
VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
CGROUP = Path("/sys/fs/cgroup")
# how long a thread of a matrix product spins for the others before it sleeps: with libgomp's own
# default, training drops to a thirtieth of its speed if another process occupies one core
SPIN = "2000"


def share_cores() -> None:
    """Let this process's threads go to sleep early when they wait for each other.

    libgomp reads the setting once, when torch is loaded; after that nothing changes.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN)


def kind() -> str:
    """Return 'cuda' where there is a GPU, else 'cpu'."""
    share_cores()
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def name() -> str:
    """Return the name of the device that trains: the GPU's, or 'cpu' with its memory in GiB."""
    import torch

    if kind() == "cuda":
        return str(torch.cuda.get_device_name(0))
    return f"cpu, {psutil.virtual_memory().total / GIB:.0f} GiB"


def processor() -> str:
    """Return the processor's name and the vector instructions that decide its kernels.

    The same products computed with other instructions differ in their last bits.
    """
    if not CPUINFO.exists():
        return f"{platform.machine()} {platform.processor()}".strip()
    lines = dict.fromkeys(CPUINFO.read_text().splitlines())
    facts = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    flags = facts.get("flags", facts.get("Features", "")).split()
    vectors = [name for name in VECTORS if name in flags]
    return " ".join([platform.machine(), facts.get("model name", ""), *vectors]).strip()


def gpus() -> list[str]:
    """Return CUDA's names of the GPUs that this process may use, without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    import pynvml

    try:
        pynvml.nvmlInit()
        return [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:  # no driver, no GPU
        return []


def has_bf16() -> bool:
    """Return whether the device computes bf16 in hardware: AVX512-bf16, AMX or an Ampere GPU."""
    on_gpu = kind() == "cuda"
    import torch

    if on_gpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def precision(setting: str) -> str:
    """Return 'fp32', 'bf16' or 'fp16' for a setting; 'auto' is the best for this device.

    Raises:
        InputError: This device can't compute in that precision.
    """
    on_gpu = kind() == "cuda"
    if setting == "auto":
        return ("bf16" if has_bf16() else "fp16") if on_gpu else "fp32"
    if setting == "bf16" and not has_bf16():
        raise InputError(
            "This processor has no bf16 arithmetic (AVX512-bf16, AMX or an Ampere GPU); "
            "expected precision 'fp32' here. Set precision='auto' to take what it does best."
        )
    if setting == "fp16" and not on_gpu:
        raise InputError(
            "precision='fp16' needs a GPU, and there is none; expected 'fp32' on a processor. "
            "Set precision='auto' to use the best one."
        )
    return setting


def threads(setting: int | None = None) -> int:
    """Return how many threads to compute with; None is one per physical core."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False) or allowed
    return setting or min(physical or 1, allowed or 1)


def threads_per_process(requested: int | None, n_processes: int = 1) -> int:
    """Return how many threads each of a job's processes computes with.

    Args:
        requested: The threads of the whole job; None takes one for each physical core.
        n_processes: The processes that share them.
    """
    return max(1, threads(requested) // n_processes)


def training_precision(requested: str, *, method: str, adapter: str) -> str:
    """Return what a job computes in: 'fp32', 'bf16' or 'fp16'.

    On a processor with bf16 arithmetic, 'auto' is bf16 for an adapter that is fine-tuned on answers
    ('sft'): it learns as well as in fp32, in little more than half of the time. It is fp32 for full
    fine-tuning, whose steps are below bf16's last digit, and for preferences and rewards, which are
    small differences of large sums.

    Args:
        requested: 'auto', 'fp32', 'bf16' or 'fp16'.
        method: The training method: 'sft', 'dpo' or 'grpo'.
        adapter: 'lora', or 'none' for full fine-tuning.

    Raises:
        InputError: This device can't compute in that precision.
    """
    is_adapted_sft = method == "sft" and adapter != "none"
    if requested == "auto" and is_adapted_sft and kind() == "cpu" and has_bf16():
        return "bf16"
    return precision(requested)


def free_memory_gib() -> float:
    """Return the free memory of the device that will train, in GiB, within a container's limit."""
    if kind() == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0]) / GIB
    free = float(psutil.virtual_memory().available)
    limit, used = (_number(CGROUP / name) for name in ("memory.max", "memory.current"))
    return (free if limit is None or used is None else min(free, limit - used)) / GIB


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # no such limit here, or "max"
        return None


class Gauge:
    """Memory and utilisation as they are now; None for what this machine does not report."""

    def __init__(self) -> None:
        """Open the counters of the process, and those of its GPU if there is one."""
        self._process = psutil.Process()
        self._times: tuple[float, float] | None = None
        self._gpu: Any = None
        if kind() == "cuda":
            import pynvml
            import torch

            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlInit()
                # by its UUID: NVML ignores CUDA_VISIBLE_DEVICES
                name = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
                self._gpu = pynvml.nvmlDeviceGetHandleByUUID(name)

    def read(self) -> dict[str, float | None]:
        """Return memory_gib of the process, gpu_memory_gib, and utilisations from 0 to 1.

        The processor's is the share of its threads' time that the process used since the last call.
        """
        values: dict[str, float | None] = {
            "cpu_utilisation": self._busy(),
            "memory_gib": self._process.memory_info().rss / GIB,
            "gpu_memory_gib": None,
            "gpu_utilisation": None,
        }
        if self._gpu is not None:
            import pynvml

            with contextlib.suppress(pynvml.NVMLError):
                values["gpu_memory_gib"] = pynvml.nvmlDeviceGetMemoryInfo(self._gpu).used / GIB
            with contextlib.suppress(pynvml.NVMLError):  # a MIG slice of a GPU has none
                rates = pynvml.nvmlDeviceGetUtilizationRates(self._gpu)
                values["gpu_utilisation"] = rates.gpu / 100
        return values

    def _busy(self) -> float | None:
        """Return the share of its threads' time that the process used since the last call."""
        import torch

        before, self._times = self._times, (time.perf_counter(), time.process_time())
        if before is None:
            return None
        passed, computed = (now - then for now, then in zip(self._times, before, strict=True))
        return float(computed / passed / torch.get_num_threads())
