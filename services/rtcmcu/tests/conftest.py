from mrtc_common.testing.fixtures import *  # noqa: F403
