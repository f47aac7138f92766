"""What deploy/ holds, judged by the tools that a platform team would use."""
