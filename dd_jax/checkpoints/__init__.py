"""Models on disk.

Of this library: ``run_folder`` (checkpoints of a training run, Orbax; ``checksums``, and ``comparison`` with their reader),
``saved`` (a folder with one trained model in safetensors, ``model_card`` its README), ``hub`` (such a folder on the Hugging Face
hub), ``trained/`` (those that come with the library).
Of PyTorch: ``torch_files`` (state dicts from files), ``torch_names`` (their entries in our parameter trees), ``published``
(import and export of whole models), ``imagenet`` (pretrained encoders).
"""
