"""SNS and SQS: the only files that know boto3."""
