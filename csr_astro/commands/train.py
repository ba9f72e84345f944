"""Command that trains a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run']


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro train``."""
    command = options.add_command(
        commands,
        'train',
        run,
        'train a network',
        [
            'train tiny -o run',
            'train default --maps maps/train --validation maps/validation --psf psf.fits -o run',
            'train default --maps maps/train --validation maps/validation -o run --resume',
            'train paper --maps maps/train --instrument pacs-scanmap-red -o run',
            'train paper --dataset cutouts -o run',
            'train fine-tune --maps mine/train --validation mine/validation -o run',
        ],
    )
    command.add_argument(
        'recipe', help='default, fine-tune, paper, paper-half, push-pull, tiny, or a TOML file'
    )
    command.add_argument('--maps', metavar='FOLDER', help='FITS maps to learn from')
    command.add_argument('--validation', metavar='FOLDER', help='FITS maps of other fields')
    command.add_argument(
        '--dataset', nargs='+', metavar='FOLDER',
        help='learn from the cutouts of "csr-astro simulate --dataset", or from those of the '
        'published tool, instead of maps',
    )
    command.add_argument(
        '--instrument', nargs='+', metavar='NAME',
        help='put sources of these instruments onto the maps before, for the recipes paper and '
        'paper-half',
    )
    command.add_argument(
        '--psf', nargs='+', default=[], metavar='FILE', help='FITS images of the PSF'
    )
    command.add_argument(
        '-o', '--output', required=True, metavar='FOLDER', help='folder for the results'
    )
    command.add_argument('--resume', action='store_true', help='continue from the last checkpoint')
    command.add_argument('--device', help='cpu, cuda or mps [a GPU if present]')
    command.add_argument(
        '--devices', type=int, default=1, metavar='N', help='GPUs that share each batch [1]'
    )
    command.add_argument(
        '--workers', type=int, default=0, metavar='N',
        help='processes per device that prepare batches; a GPU needs several [a thread]',
    )
    command.add_argument('--title', default='', help='title in the header of the weights')
    command.add_argument('--licence', default='', help='licence in the header of the weights')
    command.add_argument(
        '--training-data', help='data in the header of the weights [kinds of maps]'
    )


def run(args: Namespace) -> None:
    """Train a network by a recipe and write its weights."""
    from csr_astro.training.loop import train
    from csr_astro.training.recipe import read_recipe
    from csr_astro.training.stored import dataset_samplers

    recipe = read_recipe(args.recipe)
    if args.dataset is not None:
        if args.maps or args.validation or args.psf or args.instrument:
            raise ValueError(
                'a --dataset holds maps and sources: give no --maps, --validation, --psf, '
                '--instrument.'
            )
        sampler, validation_sampler = dataset_samplers(*args.dataset, seed=recipe.seed)
        training_data = 'simulated sources on real maps, as the dataset holds them'
    elif recipe.data == 'simulations':
        sampler, validation_sampler, training_data = _simulated_samplers(args, recipe)
    elif args.instrument:
        raise ValueError("--instrument is for recipes with data = 'simulations', such as paper.")
    else:
        sampler, validation_sampler, training_data = _map_samplers(args, recipe)
    path = train(
        recipe,
        sampler,
        validation_sampler,
        args.output,
        resume=args.resume,
        device=args.device,
        card={
            'title': args.title,
            'licence': args.licence,
            'training_data': args.training_data or training_data,
        },
        devices=args.devices,
        workers=args.workers,
    )
    # Each device runs this command; the first one speaks.
    if os.environ.get('LOCAL_RANK', '0') == '0':
        print(f'best weights: {path}')


def _simulated_samplers(args, recipe):
    """Samplers of sources that are simulated first, and what the model card says of them."""
    from csr_astro.simulation.paper import paper_facts
    from csr_astro.training.data import read_maps
    from csr_astro.training.simulated import resume_simulation
    from csr_astro.training.stored import DatasetSampler

    if not args.instrument or args.psf:
        raise ValueError(
            'this recipe learns from simulated sources: give their --instrument (and no --psf), '
            'or a --dataset.'
        )
    samplers = []
    for split, folder, n_cutouts in (
        ('train', args.maps, recipe.n_simulated),
        ('validation', args.validation, recipe.n_validation),
    ):
        maps = read_maps(folder) if folder else {}
        dataset = resume_simulation(
            Path(args.output) / 'cutouts' / split, maps, args.instrument, n_cutouts, split=split,
            real_fraction=recipe.real_fraction, seed=recipe.seed + 1000 * (split != 'train'),
        )  # fmt: skip
        size = paper_facts()['cutout_size']
        augment = split == 'train'
        samplers.append(DatasetSampler(dataset, size=size, augment=augment, seed=recipe.seed))
    kinds = 'real maps and synthetic fields' if args.maps else 'synthetic fields'
    return *samplers, f'simulated sources of {", ".join(args.instrument)} on {kinds}'


def _map_samplers(args, recipe):
    """Samplers of real maps and synthetic fields, and what the model card says of them."""
    from csr_astro.images import read_image
    from csr_astro.training.data import CutoutSampler, read_maps

    maps = read_maps(args.maps) if args.maps else {}
    validation = read_maps(args.validation, block_sizes=(1,)) if args.validation else {}
    psfs = [read_image(path)[0].data for path in args.psf]
    sampler = CutoutSampler(
        maps,
        psfs,
        real_fraction=recipe.real_fraction,
        source_fraction=recipe.source_fraction,
        seed=recipe.seed,
    )
    validation_sampler = CutoutSampler(
        validation,
        psfs,
        real_fraction=1.0,
        source_fraction=recipe.source_fraction,
        seed=recipe.seed + 1000,
    )
    kinds = f'{len(maps)} kinds of real maps ({", ".join(maps) or "none"}) and synthetic fields'
    return sampler, validation_sampler, kinds
