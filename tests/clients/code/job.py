"""What a job tells by the original client. That of 2018 knows its name and no more."""

from polyaxon_client.tracking import Job

job = Job()
print(job.project_name, job.job_id)
if hasattr(job, "log_tags"):
    job.set_name("told")
    job.set_description("told from inside")
    job.log_tags(["inside"])
    job.get_entity_data()
    print(job._entity_data["unique_name"])
