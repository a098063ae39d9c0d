variable "region" {
  description = "Where everything is"
  type        = string
}

variable "environment" {
  description = "staging or production"
  type        = string

  validation {
    condition     = contains(["staging", "production"], var.environment)
    error_message = "Expected staging or production."
  }
}

variable "image" {
  description = "Image of the target lambda (deploy/Dockerfile) in this account's ECR, by digest"
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Expected an image by digest, registry/name@sha256:…; a tag may become another image."
  }
}

variable "live_version" {
  description = "Version of the function that callers reach; empty: this one. The one before goes back to it"
  type        = string
  default     = null
}

variable "lake_bucket" {
  description = "Bucket of the lake"
  type        = string
}

variable "lake_prefix" {
  description = "Folder of the lake in it: STORAGE_URI is s3://lake_bucket/lake_prefix"
  type        = string
  default     = "lake"
}
