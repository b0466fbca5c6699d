-- The database of the shop.  Safe to repeat: it is run at every start of MariaDB by --init-file.
-- The secrets are filled in when the lab is brought up; no password stands in this file.

CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4;
USE shop;
SET time_zone = '+00:00';

CREATE TABLE IF NOT EXISTS products (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  name VARCHAR(80) NOT NULL,
  category VARCHAR(40) NOT NULL,
  price_cents INT UNSIGNED NOT NULL,
  stock INT UNSIGNED NOT NULL
) ENGINE = InnoDB;

-- Amounts in cents.  placed: paid for, work to do; completed: the worker has done it.
CREATE TABLE IF NOT EXISTS orders (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  user_id VARCHAR(64) NOT NULL,
  status ENUM('placed', 'completed') NOT NULL,
  amount_cents INT UNSIGNED NOT NULL,
  idempotency_key VARCHAR(64) NOT NULL,
  charge_id CHAR(36) NOT NULL,
  created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  UNIQUE KEY orders_by_key (idempotency_key),
  KEY orders_by_user (user_id)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS order_items (
  order_id BIGINT UNSIGNED NOT NULL,
  product_id INT UNSIGNED NOT NULL,
  quantity INT UNSIGNED NOT NULL,
  price_cents INT UNSIGNED NOT NULL,
  PRIMARY KEY (order_id, product_id),
  CONSTRAINT items_of_order FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE,
  CONSTRAINT items_of_product FOREIGN KEY (product_id) REFERENCES products (id)
) ENGINE = InnoDB;

-- One row per user who was seen in the last hour.
CREATE TABLE IF NOT EXISTS user_sessions (
  user_id VARCHAR(64) NOT NULL PRIMARY KEY,
  last_activity TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  KEY sessions_by_activity (last_activity)
) ENGINE = InnoDB;

-- Prices in cents.
INSERT IGNORE INTO products (id, name, category, price_cents, stock) VALUES
  (1, 'Small trowel', 'Garden', 3510, 97),
  (2, 'Small watering can', 'Garden', 4235, 353),
  (3, 'Small plant pot', 'Garden', 685, 57),
  (4, 'Small hand fork', 'Garden', 8600, 294),
  (5, 'Small bird feeder', 'Garden', 1155, 207),
  (6, 'Small garden hose', 'Garden', 6160, 49),
  (7, 'Small seed tray', 'Garden', 5390, 129),
  (8, 'Small rain gauge', 'Garden', 575, 64),
  (9, 'Small pruning shears', 'Garden', 4635, 234),
  (10, 'Small wheelbarrow', 'Garden', 910, 143),
  (11, 'Small tea kettle', 'Kitchen', 1120, 302),
  (12, 'Small cutting board', 'Kitchen', 4540, 50),
  (13, 'Small mixing bowl', 'Kitchen', 8660, 309),
  (14, 'Small rolling pin', 'Kitchen', 1460, 134),
  (15, 'Small colander', 'Kitchen', 6650, 341),
  (16, 'Small cast iron pan', 'Kitchen', 6160, 51),
  (17, 'Small measuring jug', 'Kitchen', 6100, 319),
  (18, 'Small bread knife', 'Kitchen', 4255, 45),
  (19, 'Small spice jar', 'Kitchen', 2455, 43),
  (20, 'Small apron', 'Kitchen', 5895, 459),
  (21, 'Small notebook', 'Office', 1555, 168),
  (22, 'Small fountain pen', 'Office', 4485, 93),
  (23, 'Small desk lamp', 'Office', 5730, 80),
  (24, 'Small stapler', 'Office', 6040, 177),
  (25, 'Small paper tray', 'Office', 5930, 437),
  (26, 'Small whiteboard', 'Office', 7175, 112),
  (27, 'Small letter opener', 'Office', 1250, 317),
  (28, 'Small pin board', 'Office', 6040, 347),
  (29, 'Small ruler', 'Office', 2115, 210),
  (30, 'Small desk pad', 'Office', 1190, 300),
  (31, 'Small tent', 'Outdoor', 7485, 52),
  (32, 'Small sleeping bag', 'Outdoor', 5970, 50),
  (33, 'Small head torch', 'Outdoor', 6530, 125),
  (34, 'Small water bottle', 'Outdoor', 5275, 368),
  (35, 'Small compass', 'Outdoor', 5635, 238),
  (36, 'Small camping stove', 'Outdoor', 8150, 180),
  (37, 'Small hammock', 'Outdoor', 4960, 319),
  (38, 'Small rucksack', 'Outdoor', 4835, 205),
  (39, 'Small walking pole', 'Outdoor', 3260, 147),
  (40, 'Small dry bag', 'Outdoor', 8325, 112),
  (41, 'Small puzzle', 'Toys', 7350, 419),
  (42, 'Small kite', 'Toys', 2690, 61),
  (43, 'Small wooden train', 'Toys', 6075, 173),
  (44, 'Small marble run', 'Toys', 5570, 273),
  (45, 'Small yo-yo', 'Toys', 3710, 393),
  (46, 'Small spinning top', 'Toys', 4790, 167),
  (47, 'Small building blocks', 'Toys', 6430, 57),
  (48, 'Small board game', 'Toys', 1400, 282),
  (49, 'Small skipping rope', 'Toys', 4475, 104),
  (50, 'Small juggling balls', 'Toys', 7945, 195),
  (51, 'Large trowel', 'Garden', 1750, 497),
  (52, 'Large watering can', 'Garden', 5200, 235),
  (53, 'Large plant pot', 'Garden', 595, 362),
  (54, 'Large hand fork', 'Garden', 985, 411),
  (55, 'Large bird feeder', 'Garden', 5905, 313),
  (56, 'Large garden hose', 'Garden', 8275, 468),
  (57, 'Large seed tray', 'Garden', 8570, 180),
  (58, 'Large rain gauge', 'Garden', 3675, 375),
  (59, 'Large pruning shears', 'Garden', 3780, 324),
  (60, 'Large wheelbarrow', 'Garden', 5280, 316),
  (61, 'Large tea kettle', 'Kitchen', 8355, 253),
  (62, 'Large cutting board', 'Kitchen', 895, 450),
  (63, 'Large mixing bowl', 'Kitchen', 1150, 158),
  (64, 'Large rolling pin', 'Kitchen', 5045, 376),
  (65, 'Large colander', 'Kitchen', 6995, 53),
  (66, 'Large cast iron pan', 'Kitchen', 815, 394),
  (67, 'Large measuring jug', 'Kitchen', 7375, 178),
  (68, 'Large bread knife', 'Kitchen', 6820, 315),
  (69, 'Large spice jar', 'Kitchen', 7170, 440),
  (70, 'Large apron', 'Kitchen', 4755, 165),
  (71, 'Large notebook', 'Office', 7530, 217),
  (72, 'Large fountain pen', 'Office', 7040, 197),
  (73, 'Large desk lamp', 'Office', 425, 256),
  (74, 'Large stapler', 'Office', 3830, 106),
  (75, 'Large paper tray', 'Office', 6450, 79),
  (76, 'Large whiteboard', 'Office', 5250, 50),
  (77, 'Large letter opener', 'Office', 2425, 413),
  (78, 'Large pin board', 'Office', 3135, 86),
  (79, 'Large ruler', 'Office', 7755, 146),
  (80, 'Large desk pad', 'Office', 4265, 220),
  (81, 'Large tent', 'Outdoor', 5275, 61),
  (82, 'Large sleeping bag', 'Outdoor', 1895, 249),
  (83, 'Large head torch', 'Outdoor', 4305, 301),
  (84, 'Large water bottle', 'Outdoor', 3040, 472),
  (85, 'Large compass', 'Outdoor', 1595, 439),
  (86, 'Large camping stove', 'Outdoor', 4600, 462),
  (87, 'Large hammock', 'Outdoor', 5825, 162),
  (88, 'Large rucksack', 'Outdoor', 7425, 232),
  (89, 'Large walking pole', 'Outdoor', 3865, 369),
  (90, 'Large dry bag', 'Outdoor', 4090, 138),
  (91, 'Large puzzle', 'Toys', 1740, 62),
  (92, 'Large kite', 'Toys', 1995, 97),
  (93, 'Large wooden train', 'Toys', 2570, 357),
  (94, 'Large marble run', 'Toys', 2580, 26),
  (95, 'Large yo-yo', 'Toys', 5160, 445),
  (96, 'Large spinning top', 'Toys', 6225, 113),
  (97, 'Large building blocks', 'Toys', 2885, 164),
  (98, 'Large board game', 'Toys', 235, 94),
  (99, 'Large skipping rope', 'Toys', 4485, 293),
  (100, 'Large juggling balls', 'Toys', 3975, 332);

-- Orders of the past, one every 43 seconds for thirty days, so that a query without its index has something to read.
-- The numbers come from arithmetic, not from chance: every lab has the same.
INSERT IGNORE INTO orders (id, user_id, status, amount_cents, idempotency_key, charge_id, created_at)
SELECT seq, CONCAT('customer-', 1 + seq * 7919 % 1999), 'completed', p.price_cents * (1 + seq % 3),
  CONCAT('past-', seq), CONCAT('00000000-0000-4000-8000-', LPAD(seq, 12, '0')),
  NOW() - INTERVAL (60001 - seq) * 43 SECOND
FROM seq_1_to_60000 JOIN products p ON p.id = 1 + seq * 31 % 100
WHERE NOT EXISTS (SELECT 1 FROM orders);

INSERT IGNORE INTO order_items (order_id, product_id, quantity, price_cents)
SELECT o.id, p.id, 1 + o.id % 3, p.price_cents
FROM orders o JOIN products p ON p.id = 1 + o.id * 31 % 100
WHERE o.idempotency_key LIKE 'past-%' AND NOT EXISTS (SELECT 1 FROM order_items);

CREATE USER IF NOT EXISTS shop IDENTIFIED BY '@{secret.shop_password}';
ALTER USER shop IDENTIFIED BY '@{secret.shop_password}';
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO shop;

-- For exporters and for reading along: sees everything, changes nothing.
CREATE USER IF NOT EXISTS monitor IDENTIFIED BY '@{secret.monitor_password}';
ALTER USER monitor IDENTIFIED BY '@{secret.monitor_password}';
GRANT SELECT ON shop.* TO monitor;
GRANT PROCESS, REPLICATION CLIENT ON *.* TO monitor;
