from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def shared_data():
    """The folder of data and reference tables beside the repository."""
    folder = Path(__file__).parents[2] / 'shared'
    if not folder.is_dir():
        pytest.skip(f'the folder of shared data is missing: {folder}')
    return folder
