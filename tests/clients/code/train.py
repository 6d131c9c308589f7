"""What a script in a container tells by the original client: of the old one only what both versions know."""

import os
import sys

from polyaxon_client.tracking import Experiment, get_data_paths, get_outputs_path

experiment = Experiment()
experiment.set_name("tracked")
experiment.set_description("told from inside")
experiment.log_tags(["inside", "python"])
experiment.log_params(lr=0.5, layers=3)
experiment.log_data_ref(data="some rows", data_name="rows")
for step in range(1, 4):
    experiment.log_metrics(step=step, loss=1 / step)
if hasattr(experiment, "log_framework"):
    experiment.log_framework("scikit-learn")

print(Experiment.get_experiment_info()["experiment_name"], sys.argv[1:], get_data_paths())
with open(os.path.join(get_outputs_path(), "result"), "w") as file:
    file.write("kept\n")
