"""An experiment that no daemon runs: it happens here, and is only told."""

import logging
import sys

from polyaxon_client.tracking import Experiment

experiment = Experiment(project=sys.argv[1])
experiment.create(name="outside", tags=["by hand"], description="told from outside")
experiment.log_params(lr=0.5)
experiment.log_metrics(loss=0.25)
logging.info("a line for the log")
print(experiment.experiment_id)
if "fail" in sys.argv:
    raise ValueError("no luck")
