"""Device and precision of computations."""

import os

import torch

__all__ = ['best_dtype', 'resolve_device']

# Process in which PyTorch can use as many threads as it likes.
_process = os.getpid()


def _survive_fork():
    """Compute in one thread in a forked process: OpenMP would wait for threads of its parent."""
    global _process  # noqa: PLW0603
    if os.getpid() != _process:
        torch.set_num_threads(1)
        _process = os.getpid()


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """Return the requested `torch.device`, by default a GPU if available, else the CPU.

    The first call in a forked process sets PyTorch to one thread there.

    Parameters
    ----------
    device : str or `torch.device`, optional
        Requested device.
    """
    _survive_fork()
    if device is None:
        if torch.cuda.is_available():
            return torch.device('cuda')
        return torch.device('mps' if torch.backends.mps.is_available() else 'cpu')
    try:
        device = torch.device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).split('\n')[0]
        raise ValueError(f'device {str(device)!r} cannot be used: {reason}.') from None
    return device


def best_dtype(device: torch.device) -> torch.dtype:
    """Return ``torch.bfloat16`` if the hardware supports it, else ``torch.float32``.

    A CPU without bfloat16 instructions emulates them, two or three times slower
    than single precision.

    Parameters
    ----------
    device : `torch.device`
        Device of the computation.
    """
    if device.type == 'cuda':
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == 'cpu':
        # Private functions, because get_capabilities is newer; some builds lack them.
        checks = (
            getattr(torch.cpu, name, bool)
            for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
        )
        fast = any(check() for check in checks)
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32
