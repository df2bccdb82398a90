# Time lme4's lmer on one core: Rscript lmer.R <csv> <formula> <factors, by comma> <repeats> -> JSON lines on stdout.
suppressMessages(library(lme4))
arguments <- commandArgs(trailingOnly = TRUE)
data <- read.csv(arguments[1], stringsAsFactors = TRUE)
for (name in strsplit(arguments[3], ",")[[1]]) data[[name]] <- factor(data[[name]])
model <- as.formula(arguments[2])
for (i in seq_len(as.integer(arguments[4]))) {
  seconds <- system.time(fit <- suppressWarnings(suppressMessages(lmer(model, data))))[["elapsed"]]
  cat(sprintf('{"seconds": %.6f, "criterion": %.9f}\n', seconds, REMLcrit(fit)))
}
