"""Tables, figures and the report. No figure imports another.

- figures of the paper: `cosegmentation` (4), `tsne` (5), `heatmaps` (6), `gradients` (Eq. 20-24); `leak` is ours
- what they share: `images` (test images and their masks), `canvas` (their look); `make_figure` makes one by its name
- tables for the terminal: `tables` (Tables 1 and 2, comparisons), `dataset_table`
- documents: `ablate` with `ablation_table` (Tables 3 and 4), `reproduce`, `report` with `curves`
"""
