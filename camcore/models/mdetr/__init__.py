"""MDETR, Kamath et al. 2021 (arXiv:2104.12763): boxes for what a caption names. Inference only.

`checkpoint.load` reads the weights, `processor` makes tensors of an image and a caption, `model.MDETR` is the network,
and `scoring.PhraseGrounder` puts them together as a `camcore.subject.Grounder`. Needs torchvision and transformers,
which `import camcore` does not.
"""
