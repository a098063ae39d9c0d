output "url" {
  description = "Address of the service"
  value       = aws_apigatewayv2_api.service.api_endpoint
}

output "version" {
  description = "Version that callers reach: live_version to come back to it"
  value       = aws_lambda_alias.live.function_version
}
