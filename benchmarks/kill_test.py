"""Kill `remove`, `batch` and `train` at random moments, and run each again.

After a kill no file under a final name may be half written, and the rerun must
end with the very files of a run that was left alone.

example: OMP_NUM_THREADS=1 python benchmarks/kill_test.py --kills 25
"""

import argparse
import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from astropy.table import Table
from safetensors.torch import load_file

from csr_astro import background, photometry, products
from csr_astro.cli import main as main_command

# Imported once, and not by each process; what trains and what spreads work, too, where installed.
PRELOADED = background, photometry, products
for needs, module in (('lightning', 'csr_astro.training.module'), ('distributed', 'distributed')):
    if find_spec(needs) is not None:
        import_module(module)
N_MAPS = 4
POSITIONS = [(10 + 9 * i, 20 + 7 * i) for i in range(12)]
COMMON = ['--fwhm', '3.5', '--orientations', '1']
RECIPE = 'width = 0.125\nn_cutouts = 24\nbatch_size = 4\nvalidate_every = 8\nn_validation = 4\n'


def write_inputs(folder):
    """Maps, their sources, and a recipe."""
    for number in range(N_MAPS):
        sky = np.random.default_rng(number).normal(20, 1, (120, 130)).astype('>f4')
        fits.PrimaryHDU(sky).writeto(folder / f'map{number}.fits')
    Table(np.array(POSITIONS), names=('x', 'y')).write(folder / 'sources.csv')
    (folder / 'recipe.toml').write_text(RECIPE)


def remove_command(folder, output, weights):
    """Words of a removal; it is run again as it was."""
    words = ['remove', folder / 'map0.fits', folder / 'sources.csv', *COMMON, '--overwrite']
    return [*words, '--output', output / 'clean.fits', '--weights', weights]


def batch_command(folder, output, weights):
    """Words of a batch on two processes; the same words go on after a stop."""
    maps = [folder / f'map{number}.fits' for number in range(N_MAPS)]
    return ['batch', *maps, *COMMON, '--catalog', folder / 'sources.csv', '--apertures', '4',
            '--workers', '2', '--output', output, '--weights', weights]  # fmt: skip


def train_command(folder, output, _):
    """Words of a training; it goes on from its last checkpoint if there is one."""
    words = ['train', folder / 'recipe.toml', '--output', output, '--device', 'cpu']
    return [*words, '--resume'] if (output / 'checkpoint.pt').exists() else words


COMMANDS = {'remove': remove_command, 'batch': batch_command, 'train': train_command}


def run_quietly(words):
    """Run a command without its output; its exit code becomes that of the process."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os._exit(main_command([str(word) for word in words]))


def start(words):
    """The command in a process of its own, forked: what takes seconds to import is there."""
    process = multiprocessing.get_context('fork').Process(target=run_quietly, args=(words,))
    process.start()
    return process


def finish(words):
    """Exit code of the command, run to its end."""
    process = start(words)
    process.join()
    return process.exitcode


def content(path):
    """What a finished file says, without the names of the folder; fails for half a file."""
    if path.suffix == '.fits':
        with fits.open(path) as hdus:
            arrays = [np.array(hdu.data) for hdu in hdus if hdu.data is not None]
    elif path.suffix == '.ecsv':
        table = Table.read(path, format='ascii.ecsv')
        # How long a map took is another number each time.
        arrays = [np.array(table[name]) for name in table.colnames if name != 'seconds']
    elif path.suffix == '.safetensors':
        tensors = load_file(path)
        arrays = [tensors[key].numpy() for key in sorted(tensors)]
    elif path.suffix == '.pt':
        state = torch.load(path, weights_only=True)
        arrays = [np.array(state['rows'], dtype=float)]
    else:
        arrays = [np.frombuffer(path.read_bytes(), np.uint8)]
    return hashlib.sha256(b''.join(array.tobytes() for array in arrays)).hexdigest()


def results(folder):
    """Contents of all files under final names."""
    if not folder.is_dir():
        return {}
    return {
        path.name: content(path)
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith('.csr-astro')
    }


def kill_once(words_of, output, moment):
    """Kill a run after some seconds; whether it was still running, and the files it left."""
    process = start(words_of(output))
    process.join(moment)
    running = process.is_alive()
    process.kill()
    process.join()
    return running, results(output)


def trial(words_of, output, moment, expected):
    """Kill, look, run again, compare: (was running, files left, problems)."""
    problems = []
    try:
        running, left = kill_once(words_of, output, moment)
    except Exception as error:  # noqa: BLE001
        return True, 0, [f'half a file: {error}']
    unknown = left.keys() - expected.keys()
    if unknown:
        problems.append(f'unexpected files {sorted(unknown)}')
    if finish(words_of(output)):
        problems.append('the rerun failed')
    elif results(output) != expected:
        problems.append('the rerun gave another result')
    return running, len(left), problems


def run_kills(name, kills, weights, seed=0, report=print):
    """Kill a command at random moments; the number of trials with problems.

    Parameters
    ----------
    name : {'remove', 'batch', 'train'}
        The command.
    kills : int
        How many times.
    weights : path-like
        For ``remove`` and ``batch``.
    seed : int, optional
        Decides the moments.
    report : callable, optional
        Is given a line for each kill.

    Returns
    -------
    bad : int
    """
    rng, bad = np.random.default_rng(seed), 0
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        write_inputs(folder)

        def words_of(output):
            if name == 'remove':
                output.mkdir(exist_ok=True)
            return COMMANDS[name](folder, output, weights)

        begin = time.perf_counter()
        if finish(words_of(folder / 'undisturbed')):
            raise RuntimeError(f'{name} fails without being killed.')
        duration = time.perf_counter() - begin
        expected = results(folder / 'undisturbed')
        for i in range(kills):
            moment = duration * rng.uniform(0, 1.05)
            running, left, problems = trial(words_of, folder / f'kill{i}', moment, expected)
            bad += bool(problems)
            report(f'{name:8s} {i:4d} {moment:8.2f} {"yes" if running else "no":>8s} {left:6d}  '
                   f'{"; ".join(problems) or "equal"}')  # fmt: skip
    return bad


def main():
    """Print one row per kill; exit with 1 if any left half a file or another result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--kills', type=int, default=25, help='of each command [%(default)s]')
    parser.add_argument('--commands', nargs='+', choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument('--weights', default='default', help='for remove and batch [%(default)s]')
    parser.add_argument('--seed', type=int, default=0, help='decides the moments [%(default)s]')
    args = parser.parse_args()
    print('command  kill  seconds  running  files  after the rerun')
    bad = sum(run_kills(name, args.kills, args.weights, args.seed) for name in args.commands)
    print(f'{len(args.commands) * args.kills} kills, {bad} with problems')
    return int(bad > 0)


if __name__ == '__main__':
    sys.exit(main())
