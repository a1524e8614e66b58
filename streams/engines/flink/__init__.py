"""What the Flink job is made of beside flink_job.py. Only that file imports PyFlink."""
