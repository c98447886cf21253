"""What a node's exception means to the client and to ComfyUI."""

from __future__ import annotations

import pytest

from comfy_worker.comfyui.cause import node_error
from comfy_worker.comfyui.events import Failed
from comfy_worker.errors import DiskFull, ExecutionFailed, GpuFault, OutOfMemory, WorkerError

SAID = {
    ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB."): OutOfMemory,
    ("torch.cuda.OutOfMemoryError", "Allocation on device"): OutOfMemory,
    ("torch.AcceleratorError", "CUDA error: out of memory"): OutOfMemory,
    (
        "RuntimeError",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ): OutOfMemory,
    ("MemoryError", ""): OutOfMemory,
    ("numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 1 TiB"): OutOfMemory,
    ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory"): OutOfMemory,
    ("torch.AcceleratorError", "CUDA error: an illegal memory access was encountered"): GpuFault,
    ("RuntimeError", "CUDA error: device-side assert triggered"): GpuFault,
    (
        "RuntimeError",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
    ): GpuFault,
    ("RuntimeError", "HIP error: unspecified launch failure"): GpuFault,
    ("RuntimeError", "CUDA error: invalid argument"): ExecutionFailed,
    (
        "RuntimeError",
        "CUDA error: no kernel image is available for execution on the device",
    ): ExecutionFailed,
    ("OSError", "[Errno 28] No space left on device: '/x/y.png'"): DiskFull,
    (
        "safetensors_rust.SafetensorError",
        "I/O error: No space left on device (os error 28)",
    ): DiskFull,
    ("ValueError", "seven is no colour"): ExecutionFailed,
}


@pytest.mark.parametrize(
    ("exception", "error_class"), SAID.items(), ids=lambda value: str(value)[:60]
)
def test_an_exception_has_its_code(
    exception: tuple[str, str], error_class: type[WorkerError]
) -> None:
    exception_type, message = exception
    error = node_error(Failed("p", "5", "KSampler", exception_type, message, ("line",)), {})
    assert type(error) is error_class
    assert error.sentence.startswith("node 5 (KSampler) ")
    assert error.details == [
        {
            "node_id": "5",
            "class_type": "KSampler",
            "exception_type": exception_type,
            "message": message,
        }
    ]


def test_an_error_names_the_clients_class() -> None:
    graph = {"5": {"class_type": "SaveImage", "inputs": {}}}
    event = Failed("p", "5", "ComfyWorkerOutput", "ValueError", "no", ())
    error = node_error(event, graph)
    assert error.sentence.startswith("node 5 (SaveImage) ")
    assert error.details[0]["class_type"] == "SaveImage"
