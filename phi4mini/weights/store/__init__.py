"""Our packed file: its layout, writing, reading, and the recipes by which a checkpoint becomes one."""
