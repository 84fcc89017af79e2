"""Data that are no images, on the untouched backbone (paper, §3.3): a folder a modality.

A config imports the one that it needs, and with it its extra:
`custom_imports = dict(imports=['unireplknet_mm', 'unireplknet_mm.modalities.audio'], ...)`.
`README.md` shows how a further one is added.
"""
