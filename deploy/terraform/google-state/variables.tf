variable "project" {
  description = "Google Cloud project"
  type        = string
}

variable "region" {
  description = "Where everything is"
  type        = string
  default     = "europe-west1"
}

variable "environment" {
  description = "staging or production: each has a state, a bucket and a database of its own"
  type        = string

  validation {
    condition     = contains(["staging", "production"], var.environment)
    error_message = "Expected staging or production."
  }
}

variable "database_tier" {
  description = "Size of the database"
  type        = string
  default     = "db-custom-1-3840"
}
