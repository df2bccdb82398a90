# Marginal means and contrasts of generalised mixed models by emmeans; writes marginal_glmer.json.
# Usage: Rscript marginal_glmer.R <output>
suppressMessages({library(lme4); library(emmeans); library(jsonlite)})
# (glmer's usual tolPwrss leaves standard errors one per cent off.)
tight <- glmerControl(optimizer = "nloptwrap", tolPwrss = 1e-12, optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-13, xtol_rel = 1e-14, ftol_rel = 1e-15, maxeval = 1e5))
herds <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial, control = tight)
ticks <- glmer(TICKS ~ YEAR + cHEIGHT + (1 | LOCATION), transform(grouseticks, cHEIGHT = (HEIGHT - 460) / 50), poisson, control = tight)
table <- function(x) { found <- as.data.frame(x); list(labels = as.character(found[[1]]), values = unname(as.matrix(found[vapply(found, is.numeric, NA)]))) }
out <- list(
  cbpp = list(
    link = table(emmeans(herds, ~ period)),
    response = table(emmeans(herds, ~ period, type = "response")),
    odds = table(confint(contrast(emmeans(herds, ~ period), "trt.vs.ctrl1", adjust = "none")))
  ),
  grouseticks = list(
    response = table(emmeans(ticks, ~ YEAR, type = "response", at = list(cHEIGHT = 0.5))),
    difference = table(contrast(regrid(emmeans(ticks, ~ YEAR, at = list(cHEIGHT = 0.5))), "revpairwise", adjust = "none"))
  )
)
write(toJSON(out, digits = 12, auto_unbox = TRUE), commandArgs(TRUE)[1])
