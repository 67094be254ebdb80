"""Settings of runs with much state, for what kills and resumes them."""

# an average of the weights, mixed inputs, a validation split, moments of two orders
EVERYTHING = (
    "augmentation=mixup_cutmix",
    "dataset.val_fraction=0.2",
    "trainer.ema=0.8",
    "optimizer=adamw",
    "evals.test.every=0.25",
    "evals.val.every=0.25",
)
# networks that step in turns, each with an optimiser of its own
PEERS = ("method=dml", "method.peers=[same,same]", "optimizer=adamw")
ADVERSARY = ("method=adv_features",)
GENERATOR = ("method=dafl",)
# what a method remembers of the steps before
PREDICTIONS = ("method=pskd",)
ERRORS = ("method=kdcl", "method.exchange.rule=general")
# a few small scenes of an open vocabulary
OPEN_SCENES = (
    "dataset=open_scenes",
    "dataset.input_shape=[3,32,32]",
    "dataset.train_size=24",
    "dataset.image_size=16",
    "dataset.test_size=10",
    "dataset.train_subset=10",
    "dataset.objects=[1,2]",
    "dataset.sizes=[0.25,0.5]",
    "dataset.vision_scenes=8",
    "dataset.vision.steps=1",
)
