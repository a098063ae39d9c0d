variable "project" {
  description = "Google Cloud project"
  type        = string
}

variable "region" {
  description = "Where everything is"
  type        = string
  default     = "europe-west1"
}

variable "zone" {
  description = "Where the machine is"
  type        = string
  default     = "europe-west1-b"
}

variable "environment" {
  description = "staging or production"
  type        = string

  validation {
    condition     = contains(["staging", "production"], var.environment)
    error_message = "Expected staging or production."
  }
}

variable "terraform_bucket" {
  description = "Bucket that holds Terraform's state, as given to terraform init"
  type        = string
}

variable "machine_type" {
  description = "Size of the machine: 8 GB run a month of 100,000 trips beside the servers"
  type        = string
  default     = "e2-standard-4"
}

variable "machine_image" {
  description = "Image of the machine's disk, by its full name, with Docker and its compose plugin"
  type        = string
}

variable "repository" {
  description = "GitHub repository whose releases may log in, owner/name"
  type        = string
}

variable "trips_dataset" {
  description = "BigQuery data set of the trips, for TRIP_SOURCE=bigquery with a table of your own; empty: none"
  type        = string
  default     = ""
}

variable "scored_trips_dataset" {
  description = "BigQuery data set of SCORED_TRIPS_TABLE; empty: none"
  type        = string
  default     = ""
}
