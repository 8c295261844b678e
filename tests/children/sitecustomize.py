"""What each Python process that tests start does first: look for garbage less often, as these tests do themselves.

Hundreds of them import Prefect, which is what most of their time goes to; a third of that is looking for garbage.
"""

import atexit
import gc

gc.set_threshold(50_000, 10, 10)
atexit.register(gc.freeze)
