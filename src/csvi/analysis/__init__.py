"""Tables, figures and the report. No figure imports another.

- figures of the paper: `cosegmentation` (4), `tsne` (5), `heatmaps` (6), `gradients` (Eq. 20-24); `leak` is not in it
- what they share: `trained` (a run and its data), `canvas` (how they look); `make_figure` makes one by its name
- tables for the terminal: `tables` (Tables 1 and 2), `comparison_table`, `dataset_table`; `plain_table` is their form
- documents: `ablation` (Tables 3 and 4), `report` with its `curves`
"""
