"""Removal of sources from many maps, or from one large map, on a dask cluster."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=['distributed', 'jobs', 'manifest', 'many', 'settings', 'workers'],
    submod_attrs={
        'distributed': ['estimate_distributed'],
        'jobs': ['Job', 'read_jobs'],
        'manifest': ['MANIFEST'],
        'many': ['remove_many'],
        'workers': ['open_client', 'require_dask'],
    },
)
