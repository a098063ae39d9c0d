# The service behind API Gateway, as a function: it reads what is in force from the lake in S3, and writes what it answers
# there. Bucket and registry are named, not made: who makes the function anew cannot touch them.
terraform {
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "6.14.0"
    }
  }

  # terraform init -backend-config=bucket=… -backend-config=region=…
  backend "s3" {
    key          = "taxifare/service.tfstate"
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region
}

data "aws_s3_bucket" "lake" {
  bucket = var.lake_bucket
}

data "aws_iam_policy_document" "function_may_be_it" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

# Reads what is promoted; writes what it answered and was told, and nothing else.
data "aws_iam_policy_document" "lake" {
  statement {
    actions   = ["s3:ListBucket"]
    resources = [data.aws_s3_bucket.lake.arn]
  }

  statement {
    actions   = ["s3:GetObject"]
    resources = ["${data.aws_s3_bucket.lake.arn}/${var.lake_prefix}/bundles/*"]
  }

  statement {
    actions = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = [
      "${data.aws_s3_bucket.lake.arn}/${var.lake_prefix}/quotes/*",
      "${data.aws_s3_bucket.lake.arn}/${var.lake_prefix}/outcomes/*",
    ]
  }
}

resource "aws_iam_role" "function" {
  name               = "taxifare-${var.environment}"
  assume_role_policy = data.aws_iam_policy_document.function_may_be_it.json
}

resource "aws_iam_role_policy" "lake" {
  name   = "lake"
  role   = aws_iam_role.function.id
  policy = data.aws_iam_policy_document.lake.json
}

resource "aws_iam_role_policy_attachment" "logs" {
  role       = aws_iam_role.function.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/taxifare-${var.environment}"
  retention_in_days = 90
}

resource "aws_lambda_function" "service" {
  function_name = "taxifare-${var.environment}"
  role          = aws_iam_role.function.arn
  package_type  = "Image"
  image_uri     = var.image
  publish       = true
  # A second of processor time loads and checks a bundle.
  memory_size = 1769
  timeout     = 28

  environment {
    variables = {
      STORAGE_URI = "s3://${var.lake_bucket}/${var.lake_prefix}"
    }
  }

  depends_on = [aws_cloudwatch_log_group.function, aws_iam_role_policy.lake]
}

# What callers reach is this alias: back to the version before is one apply with its number.
resource "aws_lambda_alias" "live" {
  name             = "live"
  function_name    = aws_lambda_function.service.function_name
  function_version = coalesce(var.live_version, aws_lambda_function.service.version)
}

resource "aws_apigatewayv2_api" "service" {
  name          = "taxifare-${var.environment}"
  protocol_type = "HTTP"
}

resource "aws_apigatewayv2_integration" "service" {
  api_id                 = aws_apigatewayv2_api.service.id
  integration_type       = "AWS_PROXY"
  integration_uri        = aws_lambda_alias.live.invoke_arn
  payload_format_version = "2.0"
}

# Who calls signs the request, with a role that may execute-api:Invoke here: no token is stored anywhere.
resource "aws_apigatewayv2_route" "all" {
  api_id             = aws_apigatewayv2_api.service.id
  route_key          = "$default"
  target             = "integrations/${aws_apigatewayv2_integration.service.id}"
  authorization_type = "AWS_IAM"
}

resource "aws_apigatewayv2_stage" "default" {
  api_id      = aws_apigatewayv2_api.service.id
  name        = "$default"
  auto_deploy = true

  default_route_settings {
    throttling_burst_limit = 200
    throttling_rate_limit  = 100
  }
}

resource "aws_lambda_permission" "gateway" {
  statement_id  = "gateway"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.service.function_name
  qualifier     = aws_lambda_alias.live.name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.service.execution_arn}/*/*"
}
