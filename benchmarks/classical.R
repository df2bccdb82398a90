# Time lme4, lmerTest and pbkrtest on one core: Rscript classical.R <csv> <formula> <factors> <repeats> <task> <family> -> JSON.
suppressMessages({ library(lme4); library(lmerTest) })
arguments <- commandArgs(trailingOnly = TRUE)
data <- read.csv(arguments[1], stringsAsFactors = TRUE)
for (name in strsplit(arguments[3], ",")[[1]]) data[[name]] <- factor(data[[name]])
model <- as.formula(arguments[2])
linear <- arguments[6] == "gaussian"
fitted <- function() suppressWarnings(suppressMessages(if (linear) lme4::lmer(model, data) else lme4::glmer(model, data, arguments[6])))
table <- function(ddf) function() coef(summary(tested, ddf = ddf))
se_df <- function(made) c(made[, "Std. Error"], made[, "df"])
replicates <- if (arguments[5] == "bootstrap") 200 else 1
tasks <- list(
  fit = list(call = fitted, answer = function(made) -2 * as.numeric(logLik(made))),
  satterthwaite = list(call = function() { tested <<- as_lmerModLmerTest(fit); table("Satterthwaite")() }, answer = se_df),
  `kenward-roger` = list(call = table("Kenward-Roger"), answer = se_df),
  bootstrap = list(call = function() suppressWarnings(suppressMessages(bootMer(fit, fixef, nsim = 200))), answer = function(made) numeric(0))
)
task <- tasks[[arguments[5]]]
fit <- fitted()
if (arguments[5] == "kenward-roger") tested <- as_lmerModLmerTest(fit)
for (i in seq_len(as.integer(arguments[4]))) {
  seconds <- system.time(made <- task$call())[["elapsed"]] / replicates
  cat(sprintf('{"seconds": %.6f, "answer": [%s]}\n', seconds, paste(sprintf("%.12g", task$answer(made)), collapse = ",")))
}
