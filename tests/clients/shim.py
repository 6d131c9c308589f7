"""Python took these names out of `collections` in 3.10; the original clients and what they need still look there."""

import collections
import collections.abc

for name in collections.abc.__all__:
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))
