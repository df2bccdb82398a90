# Time lme4's lmer on one core: Rscript lmer.R <case> <csv> <formula> <repeats> -> JSON lines on stdout.
suppressMessages(library(lme4))
arguments <- commandArgs(trailingOnly = TRUE)
data <- read.csv(arguments[2], stringsAsFactors = TRUE)
for (name in intersect(c("s", "d", "dept", "service", "Subject"), names(data))) data[[name]] <- factor(data[[name]])
model <- as.formula(arguments[3])
for (i in seq_len(as.integer(arguments[4]))) {
  seconds <- system.time(fit <- lmer(model, data))[["elapsed"]]
  cat(sprintf('{"case": "%s", "seconds": %.6f, "criterion": %.9f, "evaluations": %d}\n',
              arguments[1], seconds, REMLcrit(fit), as.integer(fit@optinfo$feval)))
}
