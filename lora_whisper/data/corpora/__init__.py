"""Public corpora and other people's formats become manifests.

    a tree (folder or Hub) → rows (table, parquet, JSON lines) → items → checked files → manifest

`items` is what all corpora have in common and `writer` makes the manifest. Between them is a module for each
family: `fleurs`, `mls`, `common_voice`, `voxpopuli`, `tabular` (CSV, TSV), `folder` (audio beside text),
`foreign` (JSON lines of NeMo, Whisper-Finetune and of anybody) and `cuts` (lhotse).
"""
