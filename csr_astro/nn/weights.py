"""Reading, checking and writing of network weights.

Weights are safetensors files, which hold numbers and cannot run code. Their header
describes the network; the registry ``data/weights.toml`` lists the bundled files and
their SHA-256.
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from csr_astro.nn.device import resolve_device
from csr_astro.nn.inpainter import FILLS, NORMALIZATIONS, Inpainter
from csr_astro.nn.unet import PartialConvUNet, memory_format
from csr_astro.utils.data import DATA, read_data
from csr_astro.utils.files import atomic_path, file_sha256
from csr_astro.utils.representation import html_table

__all__ = [
    'WeightsInfo',
    'convert_checkpoint',
    'list_weights',
    'load_checkpoint',
    'load_model',
    'preset_weights',
    'read_info',
    'read_state_dict',
    'save_weights',
]


FORMAT = 'csr_astro'
FORMAT_VERSION = 1
ARCHITECTURE = 'partial-conv-unet'

_DESCRIPTIVE = ('title', 'training_data', 'licence', 'description')


@dataclass(frozen=True)
class WeightsInfo:
    """Description of a weights file.

    Attributes
    ----------
    name : str
        Name in the registry, or the path of the file.
    path : `pathlib.Path`
        The file.
    sha256 : str
        Hash of the file.
    width : float
        Width of the network; 1 is the paper's.
    normalization : str
        Normalisation: ``'local'`` or ``'minmax'``.
    fill : str
        Fill to which the network's output is added: ``'none'``, ``'push-pull'``, ``'kriging'`` or
        ``'kriging+spline'``.
    wings_only : bool
        Whether the network is asked only behind bright sources, see
        `~csr_astro.nn.inpainter.Inpainter`.
    title, training_data, licence, description : str
        Entries of the model card.
    beams : (float, float) or None
        Narrowest and widest beam of the training, FWHM in pixels; None if unknown.

    Examples
    --------
    >>> from csr_astro.nn.weights import read_info
    >>> info = read_info('default')
    >>> info.name, len(info.sha256)
    ('default', 64)
    """

    name: str
    path: Path
    sha256: str
    width: float
    normalization: str
    fill: str
    wings_only: bool = False
    title: str = ''
    training_data: str = ''
    licence: str = ''
    description: str = ''
    beams: tuple[float, float] | None = None

    def __repr__(self) -> str:
        return f'<WeightsInfo: {self.name!r}, width {self.width:g}, sha256 {self.sha256[:12]}>'

    def _repr_html_(self) -> str:
        return html_table(f'Weights {self.name!r}', vars(self) | {'name': ''})


def list_weights() -> list[str]:
    """List the names of the bundled weights.

    Returns
    -------
    names : list of str
        Each is accepted by `load_model` and by
        `~csr_astro.NeuralBackgroundEstimator`.

    Examples
    --------
    >>> import csr_astro
    >>> 'default' in csr_astro.list_weights()
    True
    """
    return sorted(read_data('weights.toml'))


def preset_weights(preset: str, instrument: str | None = None) -> str:
    """Return the name of the bundled weights that a preset uses for an instrument.

    Parameters
    ----------
    preset : str
        Preset of `~csr_astro.NeuralBackgroundEstimator`.
    instrument : str, optional
        Name of the instrument.

    Returns
    -------
    name : str
        Name of the preset's weights that are for this instrument, else of those for all others.

    Examples
    --------
    >>> from csr_astro.nn.weights import preset_weights
    >>> preset_weights('paper', 'pacs-parallel-blue'), preset_weights('paper', 'spire-250')
    ('paper-parallel', 'paper-scanmap')
    """
    registry = read_data('weights.toml')
    names = [name for name, entry in registry.items() if entry['preset'] == preset]
    own = [name for name in names if instrument in registry[name].get('instruments', ())]
    others = [name for name in names if 'instruments' not in registry[name]]
    return (own or others)[0]


def _locate(name_or_path):
    """Return (name, path, expected hash or None) of registered weights or of a file."""
    registry = read_data('weights.toml')
    if isinstance(name_or_path, str) and name_or_path in registry:
        entry = registry[name_or_path]
        return name_or_path, DATA / 'weights' / entry['file'], entry['sha256']
    if not isinstance(name_or_path, str | PathLike):
        raise TypeError(f'weights must be a name or a path, got {type(name_or_path).__name__}.')
    path = Path(name_or_path)
    try:
        found = path.is_file()
    except OSError:
        # The name is too long for a file.
        found = False
    if not found:
        raise ValueError(
            f'weights must be one of {sorted(registry)} or the path of a .safetensors file, '
            f'got {str(name_or_path)[:200]!r}.'
        )
    return str(path), path, None


def _checked_header(handle, path):
    """Parse and check the header of an open safetensors file."""
    header = handle.metadata() or {}
    if header.get('format') != FORMAT:
        raise ValueError(
            f'{str(path)!r} holds no csr_astro weights; write them with "csr-astro train" or '
            '"csr-astro weights convert".'
        )
    if header.get('format_version') != str(FORMAT_VERSION):
        raise ValueError(
            f'{str(path)!r} has format version {header.get("format_version")}; this version of '
            f'csr_astro reads {FORMAT_VERSION}.'
        )
    if header.get('architecture') != ARCHITECTURE:
        raise ValueError(
            f'{str(path)!r} is for the architecture {header.get("architecture")!r}; only '
            f'{ARCHITECTURE!r} is known.'
        )
    try:
        width = float(header['width'])
    except (KeyError, ValueError):
        raise ValueError(f'{str(path)!r} does not say the width of its network.') from None
    if not 0 < width <= 4:
        raise ValueError(f'{str(path)!r} says width {width}; it must be above 0 and at most 4.')
    if header.get('normalization') not in NORMALIZATIONS or header.get('fill') not in FILLS:
        raise ValueError(f'{str(path)!r} does not say how its images are normalised.')
    return {
        'width': width,
        'normalization': header['normalization'],
        'fill': header['fill'],
        'wings_only': header.get('wings_only') == 'true',
        **{key: header.get(key, '') for key in _DESCRIPTIVE},
    }


def _open(path):
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f'{str(path)!r} is not a readable safetensors file ({error}); other formats are not '
            'loaded, because they can execute code.'
        ) from None


def read_info(name_or_path: str | PathLike) -> WeightsInfo:
    """Read the description of weights and check their hash, without loading the numbers.

    Parameters
    ----------
    name_or_path : str or path-like
        A name from `list_weights`, or the path of a safetensors file.

    Returns
    -------
    info : `WeightsInfo`

    Examples
    --------
    >>> from csr_astro.nn.weights import read_info
    >>> read_info('default').normalization
    'local'
    """
    name, path, expected = _locate(name_or_path)
    sha256 = file_sha256(path)
    if expected is not None and sha256 != expected:
        raise ValueError(
            f'the bundled weights {name!r} were altered (SHA-256 {sha256}, expected {expected}); '
            'reinstall csr_astro.'
        )
    with _open(path) as handle:
        description = _checked_header(handle, path)
    beams = read_data('weights.toml').get(name, {}).get('beams') if expected else None
    return WeightsInfo(
        name=name,
        path=path,
        sha256=sha256,
        beams=beams and (float(beams[0]), float(beams[1])),
        **description,
    )


def load_model(
    name_or_path: str | PathLike = 'default',
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Inpainter:
    """Load a network with its normalisation, ready to predict.

    Parameters
    ----------
    name_or_path : str or path-like, optional
        A name from `list_weights`, or the path of a safetensors file.
    device : str or `torch.device`, optional
        Device of the model; the CPU by default.
    dtype : `torch.dtype`, optional
        Precision of the network's arithmetic: ``torch.float32`` or
        ``torch.bfloat16``.

    Returns
    -------
    model : `~csr_astro.nn.inpainter.Inpainter`
        In evaluation mode, with its `WeightsInfo` as ``model.info``.

    Raises
    ------
    ValueError
        If the file has another format, an altered hash, or missing, additional or
        misshaped tensors, or if the device cannot be used.

    Examples
    --------
    >>> import csr_astro
    >>> model = csr_astro.load_model('default')
    >>> model.training
    False
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f'dtype must be torch.float32 or torch.bfloat16, got {dtype!r}.')
    device = resolve_device('cpu' if device is None else device)
    info = read_info(name_or_path)
    # On the meta device, because random weights would be drawn from the user's generator.
    with torch.device('meta'):
        network = PartialConvUNet(width=info.width, n_hints=FILLS[info.fill])
    expected = {
        key: tuple(value.shape)
        for key, value in network.state_dict().items()
        if not key.endswith('num_batches_tracked')
    }
    # Shapes are compared before anything is allocated.
    with _open(info.path) as handle:
        names = handle.keys()
        found = {key: tuple(handle.get_slice(key).get_shape()) for key in names}
        _compare_shapes(found, expected, info.path)
        state = {key: handle.get_tensor(key).float() for key in found}
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise ValueError(f'{str(info.path)!r} holds numbers that are not finite.')
    for key in network.state_dict().keys() - state.keys():
        state[key] = torch.zeros((), dtype=torch.long)
    network.load_state_dict(state, assign=True)
    model = Inpainter(
        network, info.normalization, fill=info.fill, dtype=dtype, wings_only=info.wings_only
    )
    model = model.to(device).to(memory_format=memory_format(device)).eval()
    model.requires_grad_(False)
    model.info = info
    return model


def _compare_shapes(found, expected, path):
    for what, keys in (
        ('lacks', expected.keys() - found.keys()),
        ('has unknown', found.keys() - expected.keys()),
    ):
        if keys:
            raise ValueError(f'{str(path)!r} {what} tensors: {", ".join(sorted(keys)[:5])}.')
    for key, shape in expected.items():
        if found[key] != shape:
            raise ValueError(f'{str(path)!r}: {key} has shape {found[key]}, expected {shape}.')


def save_weights(path: str | PathLike, model: Inpainter, **card: str) -> None:
    """Write a model as safetensors, with convolution kernels in half precision.

    Parameters
    ----------
    path : path-like
        File to write, replaced atomically.
    model : `~csr_astro.nn.inpainter.Inpainter`
        The model.
    **card : str
        Model card: ``title``, ``training_data``, ``licence`` and ``description``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.nn.inpainter import Inpainter
    >>> from csr_astro.nn.unet import PartialConvUNet
    >>> from csr_astro.nn.weights import read_info, save_weights
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / 'mine.safetensors'
    ...     save_weights(path, Inpainter(PartialConvUNet(0.125)), title='untrained')
    ...     info = read_info(path)
    >>> info.title, info.width
    ('untrained', 0.125)
    """
    _write(
        path, model.network, model.normalization, model.fill, torch.float16, card,
        wings_only=model.wings_only,
    )  # fmt: skip


def _write(path, network, normalization, fill, kernel_dtype, card, *, wings_only=False):
    from safetensors.torch import save_file

    unknown = card.keys() - set(_DESCRIPTIVE)
    if unknown:
        raise ValueError(f'the model card has no entries {sorted(unknown)}; it has {_DESCRIPTIVE}.')
    state = {
        key: value.detach().to('cpu', kernel_dtype if value.ndim == 4 else torch.float32)
        .contiguous()
        for key, value in network.state_dict().items()
        if not key.endswith('num_batches_tracked')
    }
    header = {
        'format': FORMAT,
        'format_version': str(FORMAT_VERSION),
        'architecture': ARCHITECTURE,
        'width': repr(network.width),
        'normalization': normalization,
        'fill': fill,
        **({'wings_only': 'true'} if wings_only else {}),
        **{key: str(value) for key, value in card.items()},
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata=header)


def require_safe_loading() -> None:
    """Refuse PyTorch versions that could be made to execute the code of a file they load.

    Raises
    ------
    RuntimeError
        If ``weights_only=True`` of `torch.load` is not safe (CVE-2025-32434).
    """
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):
        raise RuntimeError('loading a PyTorch file safely needs PyTorch 2.6 or later.')


def load_checkpoint(path: str | PathLike) -> Any:
    """Load a PyTorch file without executing code.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    content : object
        What it holds, with tensors on the CPU.

    Raises
    ------
    ValueError
        If it is damaged, or would have to execute code.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.nn.weights import load_checkpoint
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / 'checkpoint.pt'
    ...     _ = path.write_bytes(b'')
    ...     load_checkpoint(path)
    Traceback (most recent call last):
    ...
    ValueError: ... is damaged, or not a PyTorch file that can be loaded safely (EOFError).
    """
    require_safe_loading()
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # noqa: BLE001
        # Of many kinds; the texts of some tell how to load it unsafely.
        raise ValueError(
            f'{str(path)!r} is damaged, or not a PyTorch file that can be loaded safely '
            f'({type(error).__name__}).'
        ) from None


def read_state_dict(path: str | PathLike) -> dict[str, torch.Tensor]:
    """Read the tensors of a PyTorch file, without executing code.

    Parameters
    ----------
    path : path-like
        Path of a file with a state dict, alone or below ``'state_dict'`` or
        ``'model_state_dict'``.

    Returns
    -------
    state : dict of str to `torch.Tensor`
        Tensors by name, on the CPU.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from csr_astro.nn.weights import read_state_dict
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / 'checkpoint.pt'
    ...     torch.save({'state_dict': {'weight': torch.ones(3)}}, path)
    ...     state = read_state_dict(path)
    >>> list(state)
    ['weight']
    """
    state = load_checkpoint(path)
    for key in ('state_dict', 'model_state_dict'):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and torch.is_tensor(value) for key, value in state.items()
    ):
        raise ValueError(f'{str(path)!r} holds no state dict.')
    return state


def convert_checkpoint(checkpoint: str | PathLike, path: str | PathLike, **card: str) -> None:
    """Convert a checkpoint of the paper's authors to safetensors.

    Their layers compute ``W·(X⊙M)/ΣM + b``, without the ``Σ1`` of Liu et al.
    (2018). Kernels are divided by ``Σ1``, which gives the same network.

    Parameters
    ----------
    checkpoint : path-like
        PyTorch file with a state dict of ``e1.conv.input_conv.weight`` and so on,
        alone or below ``'state_dict'`` or ``'model_state_dict'``; loaded with
        ``weights_only=True``, so that it cannot execute code.
    path : path-like
        The safetensors file to write, in single precision.
    **card : str
        As in `save_weights`.

    Raises
    ------
    ValueError
        If the file is not such a checkpoint, or has missing, additional or misshaped
        tensors.

    Examples
    --------
    >>> from csr_astro.nn.weights import convert_checkpoint
    >>> convert_checkpoint('authors.pth', 'theirs.safetensors')  # doctest: +SKIP
    """
    checkpoint = Path(checkpoint)
    if not checkpoint.is_file():
        raise ValueError(f'no such checkpoint: {str(checkpoint)!r}.')
    state = read_state_dict(checkpoint)
    state = {key.removeprefix('module.'): value for key, value in state.items()}

    with torch.random.fork_rng(devices=[]):
        network = PartialConvUNet(width=1)
    blocks = [(f'e{i + 1}', b) for i, b in enumerate(network.encoder)]
    blocks += [(f'd{i + 1}', b) for i, b in enumerate(network.decoder)]
    targets, masks = {}, {}
    for name, block in blocks:
        targets[f'{name}.conv.input_conv.weight'] = block.conv.weight
        masks[f'{name}.conv.mask_conv.weight'] = tuple(block.conv.weight.shape)
        if block.conv.bias is not None:
            targets[f'{name}.conv.input_conv.bias'] = block.conv.bias
        else:
            for key in ('weight', 'bias', 'running_mean', 'running_var'):
                targets[f'{name}.bn.{key}'] = getattr(block.norm, key)
    expected = {key: tuple(value.shape) for key, value in targets.items()} | masks
    found = {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.endswith('num_batches_tracked')
    }
    _compare_shapes(found, expected, checkpoint)
    for key in masks:
        if not (state[key] == 1).all():
            raise ValueError(f'{str(checkpoint)!r}: {key} is not all ones.')
    with torch.no_grad():
        for key, tensor in targets.items():
            tensor.copy_(state[key])
        for _, block in blocks:
            block.conv.weight.div_(block.conv.n_window)
    _write(path, network, 'minmax', 'none', torch.float32, card)
