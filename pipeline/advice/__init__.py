"""What `moclip advise` and the stage `index` tell of a data set: classes, splits, videos, motion, look-alikes."""
