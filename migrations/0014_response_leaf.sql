ALTER TABLE `responses` ADD `leaf_step_id` text;--> statement-breakpoint
CREATE INDEX `responses_cut` ON `responses` (`id`) WHERE "leaf_step_id" IS NOT NULL;