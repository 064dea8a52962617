"""Files and folders: written atomically, on a disk or in an object store."""
